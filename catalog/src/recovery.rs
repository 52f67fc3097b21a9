//! Streams whose log is not what it was: it goes on on another timeline, or begins anew.
//!
//! Everything that a recovery changes is changed in one transaction, for the holder of the lease alone:
//! whoever took it has fenced the attempts before, so nothing that they still write is decided about.

use deadpool_postgres::Transaction;
use millrace_terms::{Code, Error, EventCode, Lsn, Result};

use crate::connection::Catalog;
use crate::errors;
use crate::events::{self, NewEvent, Severity};
use crate::failure::Failure;
use crate::sql::{self, Columns, Numeric};
use crate::streams::{SlotFacts, Stream};

/// A stream that begins anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Restart<'a> {
    /// Its new slot, and the log that this is on.
    pub slot: &'a SlotFacts,
    /// What is added to its positions in versions from now on.
    pub base: u64,
    /// Whether the log is another one: its positions have nothing to do with those before.
    pub other_log: bool,
    /// Why.
    pub reason: &'a Error,
}

impl Catalog {
    /// Begins a stream anew from its new slot: every table that is streamed is to be copied again, by a
    /// new epoch, and copies that run are over. One event says why.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn restart_stream(
        &self,
        mirror: &str,
        n: u32,
        lease: i64,
        restart: &Restart<'_>,
    ) -> Result<()> {
        let Restart { slot, base, other_log, reason } = restart;
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let changed = sql::execute(
            &transaction,
            "update streams set system_id = $4, timeline = $5, position = $6, position_at = now(), base = $7,
                written_below = case when $8 then '0/0' else written_below end, source_wal = $6,
                source_wal_at = now(), undecodable = null, hold = null
             where mirror = $1 and n = $2 and lease = $3",
            &[
                &mirror,
                &sql::integer(n),
                &lease,
                &slot.system_id,
                &sql::integer(slot.timeline),
                &sql::pg_lsn(slot.position),
                &Numeric(u128::from(*base)),
                other_log,
            ],
        )
        .await?;
        held(mirror, n, changed)?;
        // Leaves that are no part any more are so below the new position; of another log none is known.
        let sql = "delete from leaves l using mirror_tables t where t.id = l.table_id and t.mirror = $1
            and t.stream = $2 and ($3 or l.removed_at is not null)";
        sql::execute(&transaction, sql, &[&mirror, &sql::integer(n), other_log]).await?;
        resync(&transaction, mirror, n, reason, None).await?;
        events::add(&transaction, &NewEvent::of_error(mirror, Severity::Warning, reason)).await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Opens a mirror again that was completed: all its tables are to be copied again, and whoever finds that its
    /// workflow was not started starts it.
    ///
    /// # Errors
    /// MIRROR_STATE if it is not completed.
    pub async fn reopen_mirror(&self, mirror: &str, reason: &Error) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        let sql = "update mirrors set completed_at = null, workflow_started = false, updated_at = now(),
                etag = gen_random_uuid()::text
             where name = $1 and completed_at is not null and desired_state <> 'DROPPING'";
        if sql::execute(&transaction, sql, &[&mirror]).await? == 0 {
            let why = format!("mirror {mirror} is not COMPLETED");
            return Err(Error::new(Code::MirrorState, why).with("mirror", mirror));
        }
        let rows = sql::rows(&transaction, "select n from streams where mirror = $1", &[&mirror]).await?;
        for row in &rows {
            resync(&transaction, mirror, Columns(row).number("n")?, reason, None).await?;
        }
        events::add(&transaction, &NewEvent::info(mirror, EventCode::ResyncBegun, reason.message())).await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Follows the log of a stream to another timeline, which left the one before at `fork`: nothing of a
    /// commit from there on was written by the stream. Tables that a copy read later than that are to be
    /// copied again, because it may have seen such a commit.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn follow_timeline(
        &self,
        mirror: &str,
        n: u32,
        lease: i64,
        timeline: u32,
        fork: Lsn,
        reason: &Error,
    ) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(errors::database)?;
        // The position may have followed the end of a log that nobody has any more.
        let changed = sql::execute(
            &transaction,
            "update streams set timeline = $4, position = least(position, $5), hold = least(hold, $5),
                source_wal = $5, source_wal_at = now(), undecodable = null
             where mirror = $1 and n = $2 and lease = $3",
            &[&mirror, &sql::integer(n), &lease, &sql::integer(timeline), &sql::pg_lsn(fork)],
        )
        .await?;
        held(mirror, n, changed)?;
        resync(&transaction, mirror, n, reason, Some(fork)).await?;
        events::add(&transaction, &NewEvent::of_error(mirror, Severity::Warning, reason)).await?;
        transaction.commit().await.map_err(errors::database)
    }

    /// Notes, when an attempt ended and nothing of it is under way, that neither it nor one before wrote
    /// what is the effect of a commit from `below` on. Never below the epoch of a copy. This is the only
    /// way in which `written_below` falls, and what lets a stream go on behind a failover.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn settle_written_below(&self, mirror: &str, n: u32, lease: i64, below: Lsn) -> Result<()> {
        let changed = sql::execute(
            &self.client().await?,
            "update streams s set written_below = least(written_below, greatest($4, (
                select max(epoch) + 1 from mirror_tables t where t.mirror = s.mirror and t.stream = s.n)))
             where mirror = $1 and n = $2 and lease = $3",
            &[&mirror, &sql::integer(n), &lease, &sql::pg_lsn(below)],
        )
        .await?;
        held(mirror, n, changed)
    }

    /// Notes that the source could not decode its log, and gives how often that was so in a row with the
    /// position where it is now.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn note_undecodable(&self, mirror: &str, n: u32, lease: i64) -> Result<u32> {
        let row = sql::row(
            &self.client().await?,
            "update streams set undecodable = jsonb_build_object('position', position, 'attempts',
                case when undecodable->>'position' = position::text
                    then (undecodable->>'attempts')::integer + 1 else 1 end)
             where mirror = $1 and n = $2 and lease = $3 returning (undecodable->>'attempts')::integer as attempts",
            &[&mirror, &sql::integer(n), &lease],
        )
        .await?;
        held(mirror, n, row.iter().count() as u64)?;
        row.map_or(Ok(1), |row| Columns(&row).number("attempts"))
    }
}

impl Stream {
    /// What the versions of a stream that begins anew at `position` must be based on, so that every copy
    /// made from now on wins over every row that was written before: over those of which it is `known`
    /// that they are there, and, if the log is another one, over those that the old log may still have
    /// brought. On the same log new positions are above the old ones by themselves.
    pub fn base_above(&self, known: u128, other_log: bool, position: Lsn) -> u64 {
        let known = u64::try_from(known >> 64).unwrap_or(u64::MAX);
        let from_log = if other_log { self.base.saturating_add(self.written_below.0) } else { 0 };
        let least = self.base.saturating_add(position.0);
        // Rows above what is told here are of a catalog that was restored: an attempt from before may
        // be writing more of them.
        let known = if known >= least { known.saturating_add(MARGIN) } else { known };
        // Epochs lie one below the end of the log, at the least.
        self.base.max(known.max(from_log).saturating_add(2).saturating_sub(position.0))
    }
}

/// More than what an attempt may have under way.
const MARGIN: u64 = 1 << 30;

/// Brings tables into RESYNCING, with copies that run being over: all of a stream, or those that a copy
/// read beyond a position. They are planned anew before they are copied.
async fn resync(
    transaction: &Transaction<'_>,
    mirror: &str,
    n: u32,
    reason: &Error,
    beyond: Option<Lsn>,
) -> Result<()> {
    sql::execute(
        transaction,
        "update mirror_tables t set state = 'RESYNCING', copying = false, partial = false, epoch = null, read_end = null,
            blocked_by = null, resync_wanted = $3, append_snapshot = null, append_seen_below = null, append_hold = null,
            state_since = case when state = 'RESYNCING' then state_since else now() end
         where mirror = $1 and stream = $2 and state in ('PENDING', 'COPYING', 'STREAMING', 'RESYNCING')
            and ($4::pg_lsn is null or copying or epoch > $4 or read_end > $4)",
        &[&mirror, &sql::integer(n), &sql::json(&Failure::new(reason)), &beyond.map(sql::pg_lsn)],
    )
    .await?;
    if beyond.is_none() {
        // Positions of tables that are left out say nothing about this log.
        let sql = "update mirror_tables set epoch = null, read_end = null where mirror = $1 and stream = $2";
        sql::execute(transaction, sql, &[&mirror, &sql::integer(n)]).await?;
    }
    Ok(())
}

fn held(mirror: &str, n: u32, changed: u64) -> Result<()> {
    match changed {
        0 => Err(errors::lease_lost(format_args!("stream {n} of mirror {mirror}")).with("mirror", mirror)),
        _ => Ok(()),
    }
}
