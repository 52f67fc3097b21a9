//! The facts about a source that are judged. I/O.

use std::collections::BTreeMap;

use millrace_terms::Result;
use millrace_terms::check::Skew;

use super::super::{Session, from_sql};
use super::Purpose;

/// Transactions that are asked for: the oldest.
const OPEN_MAX: i64 = 5;

/// One row. What a release does not know is null.
const SOURCE: &str = "
select current_setting('server_version_num')::int4, pg_is_in_recovery(), current_setting('wal_level'),
       current_setting('max_replication_slots')::int4, (select count(*) from pg_replication_slots)::int4,
       current_setting('max_wal_senders')::int4, (select count(*) from pg_stat_replication)::int4,
       has_database_privilege(current_database(), 'CREATE'), current_database()::text, current_user::text,
       current_setting('max_slot_wal_keep_size'), current_setting('idle_replication_slot_timeout', true),
       array(select n from unnest(string_to_array(
           replace(current_setting('synchronized_standby_slots', true), ' ', ''), ',')) n
         where n <> '' and not exists (select from pg_replication_slots s
           where s.slot_name = n and s.slot_type = 'physical' and s.active))";

/// Transactions that have written: a new slot, and a copy, wait for their end. Whose start another role
/// may not see, it is null. The statement is not asked for: it may hold values of rows.
const OPEN: &str = "
select a.pid, coalesce(a.usename::text, 'unknown'), coalesce(a.application_name, ''),
       extract(epoch from clock_timestamp() - a.xact_start)::float8
  from pg_stat_activity a where a.backend_xid is not null and a.pid <> pg_backend_pid()
union all
select null, p.owner::text, p.gid, extract(epoch from clock_timestamp() - p.prepared)::float8
  from pg_prepared_xacts p
 order by 4 desc nulls last limit $1";

const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1e6)::int8";

const TABLES: &str = "
select c.oid, n.nspname::text, current_user::text, pg_get_userbyid(c.relowner)::text,
       has_schema_privilege(n.oid, 'USAGE'), pg_has_role(c.relowner, 'USAGE'), row_security_active(c.oid)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = any ($1::oid[])";

/// What is known of a source.
#[derive(Debug, Clone)]
pub(super) struct SourceFacts {
    pub(super) purpose: Purpose,
    /// `server_version_num`.
    pub(super) version: u32,
    pub(super) in_recovery: bool,
    pub(super) wal_level: String,
    pub(super) slots: Used,
    pub(super) senders: Used,
    /// Whether the role may make a publication in the database.
    pub(super) may_create: bool,
    pub(super) database: String,
    pub(super) user: String,
    /// `max_slot_wal_keep_size` as the server writes it; `-1` for no limit.
    pub(super) slot_wal_keep: String,
    /// `idle_replication_slot_timeout` as the server writes it; none before PostgreSQL 18.
    pub(super) idle_slot_timeout: Option<String>,
    /// Those of `synchronized_standby_slots` that no standby streams from.
    pub(super) standbys_missing: Vec<String>,
    /// The oldest transactions that have written, the oldest first.
    pub(super) open: Vec<OpenTransaction>,
    pub(super) clock: Skew,
}

/// How much there is of something, and how much of it is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) most: i32,
    pub(super) used: i32,
}

/// A transaction that has written and is not over.
#[derive(Debug, Clone)]
pub(super) struct OpenTransaction {
    /// Its process; none for a prepared one.
    pub(super) pid: Option<i32>,
    pub(super) user: String,
    /// The session's `application_name`, or the prepared transaction's identifier.
    pub(super) name: String,
    /// How long it has been open; none if the role may not see that.
    pub(super) age_s: Option<f64>,
}

/// What the role may do with a table.
#[derive(Debug, Clone, Default)]
pub(super) struct TableRights {
    pub(super) schema: String,
    pub(super) user: String,
    pub(super) owner: String,
    /// USAGE of the schema.
    pub(super) schema_usage: bool,
    /// Whether it may do what the owner may.
    pub(super) owned: bool,
    /// Whether row security hides rows from it.
    pub(super) rows_hidden: bool,
}

/// Asks a source for everything that is judged of it.
pub(super) async fn source(session: &Session, purpose: Purpose) -> Result<SourceFacts> {
    let failed = |error| from_sql("asking for settings", &error);
    let row = session.query_one(SOURCE, &[]).await.map_err(failed)?;
    let open = session.query(OPEN, &[&OPEN_MAX]).await.map_err(failed)?;
    let asked = now_micros();
    let theirs: i64 = session.query_one(CLOCK, &[]).await.map_err(failed)?.get(0);
    let clock = Skew::new(theirs, asked, now_micros());
    Ok(SourceFacts {
        purpose,
        version: row.get::<_, i32>(0).unsigned_abs(),
        in_recovery: row.get(1),
        wal_level: row.get(2),
        slots: Used { most: row.get(3), used: row.get(4) },
        senders: Used { most: row.get(5), used: row.get(6) },
        may_create: row.get(7),
        database: row.get(8),
        user: row.get(9),
        slot_wal_keep: row.get(10),
        idle_slot_timeout: row.get(11),
        standbys_missing: row.get(12),
        open: open
            .iter()
            .map(|row| OpenTransaction {
                pid: row.get(0),
                user: row.get(1),
                name: row.get(2),
                age_s: row.get(3),
            })
            .collect(),
        clock,
    })
}

/// Asks what the role may do with tables, by their OIDs.
pub(super) async fn tables(session: &Session, oids: &[u32]) -> Result<BTreeMap<u32, TableRights>> {
    let failed = |error| from_sql("asking for privileges", &error);
    let rows = session.query(TABLES, &[&oids]).await.map_err(failed)?;
    let rights = |row: &tokio_postgres::Row| TableRights {
        schema: row.get(1),
        user: row.get(2),
        owner: row.get(3),
        schema_usage: row.get(4),
        owned: row.get(5),
        rows_hidden: row.get(6),
    };
    Ok(rows.iter().map(|row| (row.get(0), rights(row))).collect())
}

/// Our own clock, for comparison with the source's.
fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
