//! The copy epoch: the position that separates a table's copy from its stream. I/O.
//!
//! `E` is read when the slot exists and the publication names the table. Then we wait until every
//! transaction with an id up to one of ours, taken after `E`, is over and *visible as over*. Who is
//! not over by then got its id after `E` was read, so its commit lies above `E`, it is delivered
//! whole, and its versions are above those of the copy (see `version`).
//!
//! Two simpler waits lose rows, and both were tried. `pg_snapshot_xmax` is the latest *completed*
//! transaction plus one: a newer one may be running, and its earlier changes below `E` are then
//! neither copied nor delivered above the copy. And a transaction may be committed in the log, below
//! the slot's consistent point, and still be invisible to new snapshots, for long while it waits for
//! a synchronous standby: neither copied nor delivered at all.

use std::fmt;
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn, Result};
use postgres_types::PgLsn;
use tokio_util::sync::CancellationToken;

use super::{Session, from_sql};

/// Pauses between two looks: short first, because most transactions are.
const POLL_MIN: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_secs(1);
/// How many of those who hold back the copy are named.
const BLOCKERS_MAX: i64 = 5;

const BLOCKERS: &str = "
select format('process %s of user %s (%s), in a transaction since %s%s', a.pid, coalesce(a.usename::text, 'unknown'),
              coalesce(nullif(a.application_name, ''), 'no application name'),
              coalesce(to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS'), 'unknown'),
              ', ' || a.state || ', last statement ' || upper(substring(a.query from '^[[:space:]]*([[:alpha:]]+)'))),
       a.xact_start
  from pg_catalog.pg_stat_activity a
 where a.backend_xid is not null and age(a.backend_xid) >= age($1::text::xid8::xid) and a.pid <> pg_backend_pid()
union all
select format('prepared transaction %L of user %s', p.gid, p.owner), p.prepared
  from pg_catalog.pg_prepared_xacts p
 where age(p.transaction) >= age($1::text::xid8::xid)
 order by 2 limit $2";

/// A copy epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub Lsn);

/// Someone whose transaction holds back a copy, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker(String);

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is in a transaction that has an id, in any database of the server; the oldest first, a few at most. A new
/// slot waits for all of them. Statements are told by their first word only, never by their values.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn open_transactions(session: &Session) -> Result<Vec<Blocker>> {
    let newest = "select pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
    let row = session.query_one(newest, &[]).await;
    let row = row.map_err(|error| from_sql("asking for open transactions", &error))?;
    blockers(session, row.get(0)).await
}

/// The end of the source's log now. What a session read before it asked was so by then: every change
/// of another shape of a table that was read is of a commit below.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn log_end(session: &Session) -> Result<Lsn> {
    let row = session.query_one("select pg_current_wal_insert_lsn()", &[]).await;
    let row = row.map_err(|error| from_sql("reading the end of the log", &error))?;
    Ok(Lsn(row.get::<_, PgLsn>(0).into()))
}

/// Takes an epoch and waits until a copy may begin. `waiting` is told who holds it back, whenever
/// that changes: the oldest first, at most five; empty when nobody does any more.
///
/// # Errors
/// `CANCELLED`, and those of [`from_sql`].
pub async fn take(
    session: &Session,
    cancel: &CancellationToken,
    mut waiting: impl FnMut(&[Blocker]),
) -> Result<Epoch> {
    let (epoch, own) = read(session).await?;
    let mut told = Vec::new();
    let mut pause = POLL_MIN;
    while !is_over(session, &own).await? {
        // A name is worth a query only when the wait is felt.
        if pause > POLL_MIN {
            let now = blockers(session, &own).await?;
            if now != told {
                waiting(&now);
                told = now;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {
                return Err(Error::new(Code::Cancelled, "cancelled while waiting for the copy epoch"));
            }
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(POLL_MAX);
    }
    if !told.is_empty() {
        waiting(&[]);
    }
    Ok(epoch)
}

/// Whether every transaction that had an id is over and visible as over, or was seen to stand idle by a later
/// look than the caller's: then it has not been committed either.
const PASSED: &str = "
select not exists (
    select from pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) open (xid)
     where open.xid <= $1::text::xid8 and not exists (
        select from pg_catalog.pg_stat_activity a
         where a.backend_xid = open.xid::xid and a.state in ('idle in transaction', 'idle in transaction (aborted)')))";

/// Waits until whatever was committed before the call is visible to whoever looks after it. A transaction
/// may be in the log, and even be delivered, long before: while it waits for a synchronous standby. Gives
/// who is in the way, in words, if that takes longer than `limit`.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn passed(session: &Session, limit: Duration) -> Result<Option<String>> {
    let (_, own) = read(session).await?;
    let begun = tokio::time::Instant::now();
    let mut pause = POLL_MIN;
    loop {
        let row = session.query_one(PASSED, &[&own]).await;
        if row.map_err(|error| from_sql("waiting for transactions to be over", &error))?.get(0) {
            return Ok(None);
        }
        if begun.elapsed() > limit {
            let blockers = blockers(session, &own).await?;
            let named: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
            let unknown = || "a transaction that the source does not tell us of".to_owned();
            return Ok(Some(if named.is_empty() { unknown() } else { named.join("; ") }));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Reads `E`, and by a later statement takes a transaction id, in a transaction that leaves nothing.
async fn read(session: &Session) -> Result<(Epoch, String)> {
    let failed = |error| from_sql("taking the copy epoch", &error);
    session.batch_execute("begin").await.map_err(failed)?;
    let epoch = session.query_one("select pg_current_wal_insert_lsn() - 1", &[]).await.map_err(failed)?;
    let own = session.query_one("select pg_current_xact_id()::text", &[]).await.map_err(failed)?;
    session.batch_execute("rollback").await.map_err(failed)?;
    Ok((Epoch(Lsn(epoch.get::<_, PgLsn>(0).into())), own.get(0)))
}

async fn is_over(session: &Session, own: &str) -> Result<bool> {
    let sql = "select pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8";
    let row = session.query_one(sql, &[&own]).await;
    Ok(row.map_err(|error| from_sql("waiting for the copy epoch", &error))?.get(0))
}

async fn blockers(session: &Session, own: &str) -> Result<Vec<Blocker>> {
    let rows = session.query(BLOCKERS, &[&own, &BLOCKERS_MAX]).await;
    let rows = rows.map_err(|error| from_sql("asking who holds back the copy", &error))?;
    Ok(rows.iter().map(|row| Blocker(row.get(0))).collect())
}
