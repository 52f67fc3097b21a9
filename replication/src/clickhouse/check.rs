//! Whether a server can be a destination. I/O.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_terms::{Code, Error, Result};

use super::{Clickhouse, ClickhouseConfig, ddl};
use crate::check::Check;

/// What is needed in the database of the destination, as GRANT names it.
const RIGHTS: &[&str] = &["CREATE TABLE", "DROP TABLE", "INSERT", "SELECT", "ALTER DELETE"];

/// Looks at everything that a mirror needs of the server. Leaves nothing behind: the table that it
/// makes to try its rights is dropped again, and a database that does not exist is not made.
pub async fn checks(config: &ClickhouseConfig) -> Vec<Check> {
    let clickhouse = match Clickhouse::connect(config).await {
        Ok(clickhouse) => clickhouse,
        Err(error) if error.code() == Code::DestinationVersion => {
            return vec![Check::pass("connection", "the server answers"), Check::fail("version", &error)];
        }
        Err(error) => return vec![Check::fail("connection", &error)],
    };
    let mut found = vec![
        Check::pass("connection", "the server answers"),
        Check::pass("version", format!("ClickHouse {}", clickhouse.version())),
    ];
    let exists = database_exists(&clickhouse).await;
    found.push(match exists {
        Ok(true) => tried(&clickhouse).await,
        Ok(false) => granted(&clickhouse).await,
        Err(error) => Check::fail("rights", &error),
    });
    found
}

async fn database_exists(clickhouse: &Clickhouse) -> Result<bool> {
    let name = ddl::quote_text(clickhouse.database());
    let count: u64 =
        clickhouse.query_one(&format!("select count() from system.databases where name = {name}")).await?;
    Ok(count > 0)
}

/// Tries every right on a table of its own.
async fn tried(clickhouse: &Clickhouse) -> Check {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    let table = clickhouse.qualified(&format!("millrace_check_{:x}_{now:x}", std::process::id()));
    let statements = [
        format!("CREATE TABLE {table} (id Int64, v UInt128) ENGINE = ReplacingMergeTree(v) ORDER BY id"),
        format!("INSERT INTO {table} SELECT 1, 1"),
        format!("DELETE FROM {table} WHERE v < 1"),
        format!("SELECT * FROM {table} FORMAT Null"),
    ];
    let mut outcome = Ok(());
    for statement in &statements {
        outcome = clickhouse.execute(statement).await;
        if outcome.is_err() {
            break;
        }
    }
    let dropped = clickhouse.execute(&format!("DROP TABLE IF EXISTS {table} SYNC")).await;
    Check::of("rights", &outcome.and(dropped), "a table could be made, written, read and dropped")
}

/// Asks for every right, as nothing can be tried in a database that does not exist.
async fn granted(clickhouse: &Clickhouse) -> Check {
    let database = ddl::quote_ident(clickhouse.database());
    for right in RIGHTS.iter().chain(&["CREATE DATABASE"]) {
        let asked = clickhouse.query_one::<u8>(&format!("CHECK GRANT {right} ON {database}.*")).await;
        if let Ok(0) = asked {
            let message = format!("the user lacks {right} on database {}", clickhouse.database());
            let error = Error::new(Code::DestinationPermission, message).with_remedy(format!(
                "Run `GRANT {} ON {database}.* TO ...` as an administrator.",
                RIGHTS.join(", ")
            ));
            return Check::fail("rights", &error);
        }
        // Releases before 25 do not know the statement: the first mirror will find out.
    }
    Check::pass("rights", format!("database {} will be made with the first mirror", clickhouse.database()))
}
