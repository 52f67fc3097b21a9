//! What must be so on a source before a mirror can be made, and while it runs. Every check is made, also
//! after one that failed, and says how to mend it, as the very statement where there is one.
//!
//! - this file: asks. I/O.
//! - `facts`: what is asked, and the answers as they are. I/O.
//! - `source`, `table`: the judgements, each a table of rules. Pure.

mod facts;
mod source;
mod table;

use millrace_terms::check::{Check, Name, judge};
use millrace_terms::{Code, Error, Result, TableName};

use super::describe::{self, TableShape};
use super::{Session, SourceConfig, dial, identify};
use table::TableFacts;
pub use table::columns;

/// A table that a mirror shall replicate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: TableName,
    /// Columns that are left out.
    pub exclude: Vec<String>,
    /// Whether rows are only ever inserted.
    pub append_only: bool,
    /// Whether rows of the tables that inherit from it are its rows, too.
    pub merges_heirs: bool,
}

/// What a source is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be known. What mirrors will be made with is not.
    Peer,
    /// A mirror is to be made. What the user made for it need not be made.
    NewMirror {
        /// Whether it makes a publication of its own.
        publishes: bool,
        /// Slots that it makes: one for each stream, unless the user made the slot.
        slots: u32,
    },
    /// A mirror is there, and goes on.
    Upkeep,
}

/// Checks a source as such. The session is for further checks; there is none if it cannot be dialled.
pub async fn source(
    config: &SourceConfig,
    application: &str,
    purpose: Purpose,
) -> (Vec<Check>, Option<Session>) {
    let session = match dial(config, application).await {
        Ok(session) => session,
        Err(error) => return (vec![Check::fail(Name::SourceConnection, &error)], None),
    };
    let message = format!("connected to {}:{} as {}", config.host, config.port, config.user);
    let mut checks = vec![Check::pass(Name::SourceConnection, message)];
    let (asked, replication) = tokio::join!(facts::source(&session, purpose), identify(config, application));
    match asked {
        Ok(facts) => checks.extend(judge(source::RULES, &facts)),
        Err(error) => checks.push(Check::fail(Name::SourceSettings, &error)),
    }
    checks.push(source::may_replicate(&config.user, replication.map(drop)));
    (checks, Some(session))
}

/// Checks tables, and returns the shapes of those that exist, in the order of `wanted`. `publishes`:
/// whether a publication of our own is made for them.
///
/// # Errors
/// Only if the source cannot be asked: those of [`super::from_sql`].
pub async fn tables(
    session: &Session,
    wanted: &[Wanted],
    publishes: bool,
) -> Result<(Vec<Check>, Vec<TableShape>)> {
    let names: Vec<TableName> = wanted.iter().map(|table| table.name.clone()).collect();
    let mut found = describe::find(session, &names).await?;
    let oids: Vec<u32> = found.values().map(|shape| shape.oid).collect();
    let mut rights = facts::tables(session, &oids).await?;
    let mut checks = Vec::new();
    let mut shapes = Vec::new();
    for table in wanted {
        let (Some(shape), name) = (found.remove(&table.name), table.name.to_string()) else {
            checks.push(Check::fail(Name::Table, &missing(&table.name)));
            continue;
        };
        let rights = rights.remove(&shape.oid).unwrap_or_default();
        let shape = if table.merges_heirs { shape.with_heirs() } else { shape };
        let facts = TableFacts { shape, wanted: table.clone(), rights, publishes };
        checks.extend(judge(table::RULES, &facts).into_iter().map(|check| check.on(&name)));
        shapes.push(facts.shape);
    }
    Ok((checks, shapes))
}

fn missing(table: &TableName) -> Error {
    Error::new(Code::SourceTableMissing, format!("the source has no table {table}"))
        .with("table", table.to_string())
}
