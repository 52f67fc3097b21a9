//! What must be so on a source before a mirror can be made. Every check is run, also after one that
//! failed, and says how to mend it, as the very statement where there is one. I/O.

use millrace_terms::{Code, Error, Result, TableName, quote_ident};

use super::describe::{self, TableKind, TableShape};
use super::{Session, SourceConfig, dial, from_sql, identify};
use crate::check::Check;

/// Releases that are supported, as `server_version_num / 10000`.
const MAJORS: std::ops::RangeInclusive<u32> = 14..=18;
/// The check whether publications may be made: of no interest where the user makes them.
pub const PUBLICATION_PRIVILEGE: &str = "publication privilege";
/// The first minor release of each major that keeps a publication's later changes when a table is
/// added while it is written to.
const MINORS_WITHOUT_GAP: [(u32, u32); 4] = [(14, 18), (15, 13), (16, 9), (17, 5)];

const FACTS: &str = "
select pg_is_in_recovery(), current_setting('wal_level'),
       current_setting('max_replication_slots')::int4, (select count(*) from pg_replication_slots)::int4,
       current_setting('max_wal_senders')::int4, (select count(*) from pg_stat_replication)::int4,
       has_database_privilege(current_database(), 'CREATE'), current_database()::text, current_user::text,
       current_setting('max_slot_wal_keep_size')";

const OWNED: &str = "
select c.oid from pg_class c where c.oid = any ($1::oid[]) and not pg_has_role(c.relowner, 'USAGE')";

/// A table that a mirror shall replicate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: TableName,
    /// Columns that are left out.
    pub exclude: Vec<String>,
    /// Whether rows are only ever inserted.
    pub append_only: bool,
}

/// Checks a source as such, on which so many slots are to be made. The session is for further checks; there
/// is none if it cannot be dialled.
pub async fn source(config: &SourceConfig, slots: u32, application: &str) -> (Vec<Check>, Option<Session>) {
    let session = match dial(config, application).await {
        Ok(session) => session,
        Err(error) => return (vec![Check::fail("connection", &error)], None),
    };
    let mut checks = vec![Check::pass(
        "connection",
        format!("connected to {}:{} as {}", config.host, config.port, config.user),
    )];
    match session.version().await {
        Ok(version) => checks.extend(versions(version)),
        Err(error) => checks.push(Check::fail("server version", &error)),
    }
    let facts = session.query_one(FACTS, &[]).await.map_err(|error| from_sql("asking for settings", &error));
    match facts {
        Ok(facts) => checks.extend(settings(&facts, slots)),
        Err(error) => checks.push(Check::fail("settings", &error)),
    }
    let replicates = identify(config, application).await.map_err(|error| match error.code() {
        Code::SourcePermission => error.with_remedy(format!(
            "Run `ALTER ROLE {} REPLICATION;` as a superuser.",
            quote_ident(&config.user)
        )),
        _ => error,
    });
    let message = format!("{} may replicate", config.user);
    checks.push(Check::of("replication privilege", &replicates, message));
    (checks, Some(session))
}

/// Checks tables, and returns the shapes of those that exist, in the order of `wanted`. `publishes`:
/// whether a publication of our own is to be made for them.
///
/// # Errors
/// Only if the source cannot be asked: those of [`from_sql`].
pub async fn tables(
    session: &Session,
    wanted: &[Wanted],
    publishes: bool,
) -> Result<(Vec<Check>, Vec<TableShape>)> {
    let names: Vec<TableName> = wanted.iter().map(|table| table.name.clone()).collect();
    let mut found = describe::find(session, &names).await?;
    let mut checks = Vec::new();
    let mut shapes = Vec::new();
    for table in wanted {
        let Some(shape) = found.remove(&table.name) else {
            let error =
                Error::new(Code::SourceTableMissing, format!("the source has no table {}", table.name))
                    .with("table", table.name.to_string());
            checks.push(Check::fail("table", &error));
            continue;
        };
        checks.extend(table_checks(&shape, table));
        shapes.push(shape);
    }
    if publishes {
        checks.extend(publishable(session, &shapes).await?);
    }
    Ok((checks, shapes))
}

/// Whether we may read what is not excluded.
fn readable(shape: &TableShape, exclude: &[String]) -> Result<()> {
    let hidden: Vec<_> =
        shape.unreadable.iter().filter(|column| !exclude.contains(column)).cloned().collect();
    if hidden.is_empty() {
        return Ok(());
    }
    let name = shape.name.to_string();
    let error =
        Error::new(Code::SourcePermission, format!("{name} may not be read: columns {}", hidden.join(", ")))
            .with("table", &name)
            .with_remedy(format!(
                "Run `GRANT SELECT ON {} TO ...;` for the peer's user, or exclude the columns.",
                shape.name.to_sql()
            ));
    Err(error)
}

fn table_checks(shape: &TableShape, wanted: &Wanted) -> Vec<Check> {
    let name = shape.name.to_string();
    let mut checks = Vec::new();
    match shape.refusal(&wanted.exclude, wanted.append_only) {
        Some(error) => checks.push(Check::fail("table", &error)),
        None => checks.push(Check::pass("table", "can be replicated").on(&name)),
    }
    checks.extend(shape.warning(wanted.append_only).map(|error| Check::warn("key", &error)));
    checks.push(Check::of("read privilege", &readable(shape, &wanted.exclude), "may be read").on(&name));
    if shape.heirs > 0 && shape.kind == TableKind::Ordinary {
        let why =
            format!("{name} has {} tables that inherit from it: their rows are not its own", shape.heirs);
        let error = Error::new(Code::TableUnsupported, why)
            .with("table", &name)
            .with_remedy("Name the inheriting tables too: each is replicated as a table of its own.");
        checks.push(Check::warn("inheritance", &error));
    }
    checks
}

async fn publishable(session: &Session, shapes: &[TableShape]) -> Result<Vec<Check>> {
    let oids: Vec<u32> = shapes.iter().map(|shape| shape.oid).collect();
    let rows = session.query(OWNED, &[&oids]).await.map_err(|e| from_sql("asking for the owners", &e))?;
    let foreign = rows.iter().filter_map(|row| shapes.iter().find(|shape| shape.oid == row.get::<_, u32>(0)));
    Ok(foreign
        .map(|shape| {
            let why = format!("only the owner of {} may publish it", shape.name);
            let error = Error::new(Code::SourcePermission, why)
                .with("table", shape.name.to_string())
                .with_remedy("Make the peer's user a member of the owner's role, or let the owner create a publication and name it in the mirror's settings.");
            Check::fail("publish privilege", &error)
        })
        .collect())
}

fn versions(version: u32) -> Vec<Check> {
    let (major, minor) = (version / 10_000, version % 10_000);
    let name = "server version";
    if !MAJORS.contains(&major) {
        let error = Error::new(Code::SourceVersion, format!("the source is PostgreSQL {major}.{minor}"));
        return vec![Check::fail(name, &error)];
    }
    let mut checks = vec![Check::pass(name, format!("PostgreSQL {major}.{minor}"))];
    if MINORS_WITHOUT_GAP.iter().any(|(of, first)| *of == major && minor < *first) {
        let why = format!(
            "PostgreSQL {major}.{minor} may lose changes of a table that is added to a publication while it is written to"
        );
        let error = Error::new(Code::SourceVersion, why)
            .with_remedy("Update the source to its newest minor release.");
        checks.push(Check::warn("minor release", &error));
    }
    checks
}

fn settings(facts: &tokio_postgres::Row, slots: u32) -> Vec<Check> {
    let recovery = if facts.get(0) {
        Err(Error::new(Code::SourceInRecovery, "the source is a standby"))
    } else {
        Ok(())
    };
    let level: &str = facts.get(1);
    let wal_level = if level == "logical" {
        Ok(())
    } else {
        Err(Error::new(Code::SourceWalLevel, format!("wal_level is {level}, not logical")))
    };
    let create = if facts.get(6) {
        Ok(())
    } else {
        let (database, user): (String, String) = (facts.get(7), facts.get(8));
        Err(Error::new(Code::SourcePermission, format!("{user} may not create a publication in {database}"))
            .with_remedy(format!(
                "Run `GRANT CREATE ON DATABASE {} TO {};`.",
                quote_ident(&database),
                quote_ident(&user)
            )))
    };
    vec![
        Check::of("primary", &recovery, "the source is a primary"),
        Check::of("wal level", &wal_level, "wal_level is logical"),
        left("replication slots", "max_replication_slots", facts.get(2), facts.get(3), slots),
        left("wal senders", "max_wal_senders", facts.get(4), facts.get(5), slots),
        Check::of(PUBLICATION_PRIVILEGE, &create, "publications may be created"),
        retention(facts.get(9)),
    ]
}

/// Whether `wanted` more may be used of what a setting allows.
fn left(name: &str, setting: &str, most: i32, used: i32, wanted: u32) -> Check {
    let needed = used.saturating_add_unsigned(wanted);
    if needed <= most {
        return Check::pass(name, format!("{used} of {most} in use"));
    }
    let message = match most - used {
        free @ 1.. => format!("{wanted} are needed, and {free} of {most} of {setting} are free"),
        _ => format!("all {most} of {setting} are in use"),
    };
    let error = Error::new(Code::SourceSlotsExhausted, message).with_remedy(format!(
        "Run `ALTER SYSTEM SET {setting} = {};` and restart the source, or drop what nobody uses.",
        needed.max(10)
    ));
    Check::fail(name, &error)
}

fn retention(limit: &str) -> Check {
    let name = "slot retention";
    if limit == "-1" {
        return Check::pass(name, "the source keeps its log as long as the slot needs it");
    }
    let why =
        format!("the source invalidates slots that hold more than {limit} of log (max_slot_wal_keep_size)");
    let error = Error::new(Code::SlotLost, why).with_remedy(
        "Keep it well above what is written while a mirror is paused or the destination is away: a lost slot means a resync.",
    );
    Check::warn(name, &error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckStatus;

    fn verdicts(version: u32) -> Vec<CheckStatus> {
        versions(version).iter().map(|check| check.status).collect()
    }

    #[test]
    fn versions_are_judged() {
        use CheckStatus::{Fail, Pass, Warn};
        assert_eq!(verdicts(13_00_20), [Fail]);
        assert_eq!(verdicts(14_00_17), [Pass, Warn]);
        assert_eq!(verdicts(15_00_13), [Pass]);
        assert_eq!(verdicts(18_00_00), [Pass]);
        assert_eq!(verdicts(19_00_00), [Fail]);
    }

    #[test]
    fn what_is_used_up_names_its_setting() {
        let slots = |used, wanted| left("slots", "max_replication_slots", 10, used, wanted);
        assert_eq!(slots(9, 1).status, CheckStatus::Pass);
        assert_eq!(slots(10, 0).status, CheckStatus::Pass, "who needs none need not be refused");
        let full = slots(10, 1);
        assert!(full.remedy.contains("SET max_replication_slots = 11"), "{}", full.remedy);
        let few = slots(8, 3);
        assert!(few.message.contains("3 are needed, and 2 of 10"), "{}", few.message);
        assert!(few.remedy.contains("SET max_replication_slots = 11"), "{}", few.remedy);
    }
}
