//! Whether a server can be a destination. Nothing is made there, not even for a moment: rights are asked
//! for, not tried.
//!
//! - this file: asks. I/O.
//! - `judge`: the judgements, a table of rules, and what older servers say of rights. Pure.

mod judge;

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_terms::check::{self, Check, Name, Skew};
use millrace_terms::{Code, Result};

use super::{Clickhouse, ClickhouseConfig, ddl};
use judge::{DestinationFacts, RIGHTS, RULES, Right};

/// Looks at everything that a mirror needs of the server. Makes nothing.
pub async fn checks(config: &ClickhouseConfig) -> Vec<Check> {
    let message = format!("{} answers to {}", config.url, config.user);
    let clickhouse = match Clickhouse::connect(config).await {
        Ok(clickhouse) => clickhouse,
        Err(error) if error.code() == Code::DestinationVersion => {
            return vec![
                Check::pass(Name::DestinationConnection, message),
                Check::fail(Name::DestinationVersion, &error),
            ];
        }
        Err(error) => return vec![Check::fail(Name::DestinationConnection, &error)],
    };
    let mut found = vec![
        Check::pass(Name::DestinationConnection, message),
        Check::pass(Name::DestinationVersion, format!("ClickHouse {}", clickhouse.version())),
    ];
    match facts(&clickhouse, &config.user).await {
        Ok(facts) => found.extend(check::judge(RULES, &facts)),
        Err(error) => found.push(Check::fail(Name::DestinationDatabase, &error)),
    }
    found
}

async fn facts(clickhouse: &Clickhouse, user: &str) -> Result<DestinationFacts> {
    let name = ddl::quote_text(clickhouse.database());
    let engine: Vec<String> =
        clickhouse.query(&format!("select engine from system.databases where name = {name}")).await?;
    let read_only: Vec<String> =
        clickhouse.query("select value from system.settings where name = 'readonly'").await?;
    let asked = now_micros();
    let theirs: i64 = clickhouse.query_one("select toUnixTimestamp64Micro(now64(6))").await?;
    let clock = Skew::new(theirs, asked, now_micros());
    Ok(DestinationFacts {
        database: clickhouse.database().to_owned(),
        user: user.to_owned(),
        engine: engine.into_iter().next(),
        read_only: read_only.first().is_some_and(|value| value != "0"),
        rights: rights(clickhouse).await,
        clock,
    })
}

/// Each right, and whether the user has it in the database, as far as that can be told.
async fn rights(clickhouse: &Clickhouse) -> Vec<(Right, Option<bool>)> {
    let database = ddl::quote_ident(clickhouse.database());
    let mut known = Vec::new();
    for right in RIGHTS {
        let sql = format!("CHECK GRANT {} ON {database}.*", right.name);
        match clickhouse.query_one::<u8>(&sql).await {
            Ok(held) => known.push((*right, Some(held == 1))),
            // Releases before 25 do not know the statement.
            Err(_) => return granted(clickhouse).await,
        }
    }
    known
}

async fn granted(clickhouse: &Clickhouse) -> Vec<(Right, Option<bool>)> {
    // Who may not see the own grants has none that we could read.
    let grants: Vec<String> = clickhouse.query("SHOW GRANTS").await.unwrap_or_default();
    RIGHTS.iter().map(|right| (*right, judge::holds(&grants, right.name, clickhouse.database()))).collect()
}

/// Our own clock, for comparison with the server's.
fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
