//! Streams: their positions, and the lease by which the writes of a replaced attempt are refused.
//!
//! An attempt takes the lease when it begins: the lease's number grows by one, and every write of
//! the attempt before is refused from then on. The time of a lease is for the holder alone: it stops
//! sending when it could not renew for that long by its own clock. So when the time is over, nothing
//! of it is under way; [`Lease::previous`] says how long that may still take.

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::{SignedDuration, Timestamp};
use millrace_terms::{Code, Error, Lsn, Result};
use tokio_postgres::Row;

use crate::connection::Catalog;
use crate::errors;
use crate::failure::Failure;
use crate::slots::SlotSeen;
use crate::sql::{self, Columns, Numeric};
use crate::state::Verdict;

/// A stream of a mirror.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// The mirror.
    pub mirror: String,
    /// Its number; the first is 0.
    pub n: u32,
    /// Its replication slot.
    pub slot: String,
    /// Its publication.
    pub publication: String,
    /// The cluster that the slot was made on, as IDENTIFY_SYSTEM spells it; none before.
    pub system_id: Option<String>,
    /// The timeline of that cluster.
    pub timeline: Option<u32>,
    /// Up to here every commit is in the destination; none before the slot was made.
    pub position: Option<Lsn>,
    /// Where it is to begin, and what may be acknowledged to the source, are not above: the copy of an
    /// append-only table is being begun (see `append`).
    pub hold: Option<Lsn>,
    /// When that was written last.
    pub position_at: Option<Timestamp>,
    /// Number of the lease; 0 before the first attempt.
    pub lease: i64,
    /// Until when its holder may be sending; none if it gave the lease back.
    pub lease_until: Option<Timestamp>,
    /// Added to every position in versions.
    pub base: u64,
    /// No row of a position from here on was sent.
    pub written_below: Lsn,
    /// Its health.
    pub verdict: Verdict,
    /// Why it is STALLED.
    pub reason: Option<Failure>,
    /// Since when it is so.
    pub verdict_since: Timestamp,
    /// When the last transaction that is in the destination was committed on the source.
    pub last_commit_at: Option<Timestamp>,
    /// The end of the source's log.
    pub source_wal: Option<Lsn>,
    /// When that was seen.
    pub source_wal_at: Option<Timestamp>,
    /// When an attempt held the lease last.
    pub attended_at: Option<Timestamp>,
    /// Every commit until then, by the source's clock, is in the destination.
    pub caught_up_at: Option<Timestamp>,
    /// When the position moved last.
    pub moved_at: Option<Timestamp>,
    /// Rows written per second over the last minute, as its last attempt said.
    pub rows_per_s: f64,
    /// The slot, as housekeeping saw it last; none before, and when it is not there.
    pub slot_seen: Option<SlotSeen>,
}

impl Stream {
    /// Where an attempt begins: the position, or what is held below it.
    pub fn start(&self) -> Option<Lsn> {
        self.position.map(|position| self.hold.map_or(position, |hold| hold.min(position)))
    }

    /// Bytes of log between the position and the source's end, as last seen.
    pub fn lag_bytes(&self) -> Option<u64> {
        Some(self.source_wal?.bytes_since(self.position?))
    }

    /// How far the destination is behind at `now`: nothing if all of the source's log is written, else the
    /// time since which commits may be missing. Of a quiet mirror the last commit is old and says nothing:
    /// what counts is until when the log is known to be written.
    pub fn lag_time(&self, now: Timestamp) -> Option<SignedDuration> {
        match self.lag_bytes()? {
            0 => Some(SignedDuration::ZERO),
            _ => Some(now.duration_since(self.complete_until()?).max(SignedDuration::ZERO)),
        }
    }

    /// Every commit until then, by the source's clock, is in the destination.
    fn complete_until(&self) -> Option<Timestamp> {
        self.last_commit_at.max(self.caught_up_at)
    }
}

/// A lease that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its number; every write bears it.
    pub number: i64,
    /// How long holders before may still be sending; zero if the last of them gave its lease back and
    /// the time of those that it had replaced is over.
    pub previous: Duration,
}

/// The slot, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFacts {
    /// `IDENTIFY_SYSTEM`: the cluster.
    pub system_id: String,
    /// `IDENTIFY_SYSTEM`: its timeline.
    pub timeline: u32,
    /// The slot's consistent point: the stream begins there.
    pub position: Lsn,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Up to here every commit is in the destination. It never goes back, but for the copy of an
    /// append-only table (see `append`).
    pub position: Lsn,
    /// When the last transaction before it was committed on the source; none if not known.
    pub last_commit_at: Option<Timestamp>,
    /// The end of the source's log; none if not known.
    pub source_wal: Option<Lsn>,
    /// Every commit until then, by the source's clock, is before the position; none if not known.
    pub caught_up_at: Option<Timestamp>,
    /// Rows written per second over the last minute.
    pub rows_per_s: f64,
}

impl Catalog {
    /// Names of the slots and of the publications of all streams.
    pub async fn list_stream_objects(&self) -> Result<BTreeSet<String>> {
        let sql = "select slot as name from streams union select publication from streams";
        let rows = sql::rows(&self.client().await?, sql, &[]).await?;
        rows.iter().map(|row| Columns(row).text("name")).collect()
    }

    /// A stream.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn get_stream(&self, mirror: &str, n: u32) -> Result<Stream> {
        let sql = format!("{SELECT} where mirror = $1 and n = $2");
        let row = sql::row(&self.client().await?, &sql, &[&mirror, &sql::integer(n)]).await?;
        read(&row.ok_or_else(|| not_found(mirror, n))?)
    }

    /// All streams of all mirrors: for housekeeping.
    pub async fn list_streams(&self) -> Result<Vec<Stream>> {
        let sql = format!("{SELECT} order by mirror, n");
        sql::rows(&self.client().await?, &sql, &[]).await?.iter().map(read).collect()
    }

    /// The stream that uses a slot of a source; none if no mirror does.
    pub async fn stream_of_slot(&self, source: &str, slot: &str) -> Result<Option<Stream>> {
        let sql =
            format!("{SELECT} where slot = $2 and mirror in (select name from mirrors where source = $1)");
        sql::row(&self.client().await?, &sql, &[&source, &slot]).await?.as_ref().map(read).transpose()
    }

    /// Writes down the slot. What is there already stays: the position may have moved since.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn record_slot(&self, mirror: &str, n: u32, facts: &SlotFacts) -> Result<Stream> {
        let sql = format!(
            "update streams set system_id = coalesce(system_id, $3), timeline = coalesce(timeline, $4),
                position = coalesce(position, $5), position_at = coalesce(position_at, now())
             where mirror = $1 and n = $2 returning {COLUMNS}"
        );
        let (timeline, position) = (sql::integer(facts.timeline), sql::pg_lsn(facts.position));
        let parameters: sql::Params<'_> =
            &[&mirror, &sql::integer(n), &facts.system_id, &timeline, &position];
        let row = sql::row(&self.client().await?, &sql, parameters).await?;
        read(&row.ok_or_else(|| not_found(mirror, n))?)
    }

    /// Takes the lease for `ttl`, whoever has it: the writes of that one are refused from now on.
    /// `Duration::ZERO` only fences, for a drop.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn take_lease(&self, mirror: &str, n: u32, ttl: Duration) -> Result<Lease> {
        let row = sql::row(
            &self.client().await?,
            "update streams set lease = lease + 1, fenced_until = greatest(fenced_until, lease_until),
                lease_until = clock_timestamp() + make_interval(secs => $3), attended_at = clock_timestamp()
             where mirror = $1 and n = $2
             returning lease, coalesce(
                extract(epoch from fenced_until - clock_timestamp()), 0)::double precision as previous",
            &[&mirror, &sql::integer(n), &ttl.as_secs_f64()],
        )
        .await?;
        let row = row.ok_or_else(|| not_found(mirror, n))?;
        let previous: f64 = Columns(&row).get("previous")?;
        Ok(Lease {
            number: Columns(&row).get("lease")?,
            previous: Duration::from_secs_f64(previous.max(0.0)),
        })
    }

    /// Brings the numbers of leases to `theirs`, if `lease` is the present one: somebody bears that number,
    /// although the catalog never gave it. So it was restored from a backup.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn skip_leases(&self, mirror: &str, n: u32, lease: i64, theirs: i64) -> Result<()> {
        self.change(mirror, n, lease, "lease = greatest(lease, $4)", &[&theirs]).await
    }

    /// Renews a lease for `ttl` from now. Take the time by a monotonic clock *before* the call: the
    /// lease holds until that time plus `ttl`.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn renew_lease(&self, mirror: &str, n: u32, lease: i64, ttl: Duration) -> Result<()> {
        let set =
            "lease_until = clock_timestamp() + make_interval(secs => $4), attended_at = clock_timestamp()";
        self.change(mirror, n, lease, set, &[&ttl.as_secs_f64()]).await
    }

    /// Gives a lease back: nothing of its holder is under way any more.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn release_lease(&self, mirror: &str, n: u32, lease: i64) -> Result<()> {
        self.change(mirror, n, lease, "lease_until = null, attended_at = clock_timestamp()", &[]).await
    }

    /// Writes down how far the stream is, and gives what may be acknowledged to the source: what was
    /// written, unless it is held. At most every 500 ms: repeats are harmless, and the catalog has other
    /// things to do.
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn advance_position(
        &self,
        mirror: &str,
        n: u32,
        lease: i64,
        progress: &Progress,
    ) -> Result<Lsn> {
        // The end of the log was perhaps seen further on by somebody who asked for it: a walsender tells
        // how far it has read.
        let sql = "update streams set position = greatest(position, $4), position_at = now(),
            moved_at = case when $4 > position or position is null then now() else moved_at end,
            last_commit_at = coalesce($5, last_commit_at), source_wal = greatest(source_wal, $6),
            source_wal_at = case when $6 is null then source_wal_at else now() end,
            caught_up_at = coalesce($7, caught_up_at), rows_per_s = $8
            where mirror = $1 and n = $2 and lease = $3 returning least(position, hold) as acknowledged";
        let Progress { position, last_commit_at, source_wal, caught_up_at, rows_per_s } = progress;
        let source_wal = source_wal.map(sql::pg_lsn);
        let position = sql::pg_lsn(*position);
        let parameters: sql::Params<'_> = &[
            &mirror,
            &sql::integer(n),
            &lease,
            &position,
            last_commit_at,
            &source_wal,
            caught_up_at,
            rows_per_s,
        ];
        let row = sql::row(&self.client().await?, sql, parameters).await?;
        let lost =
            || errors::lease_lost(format_args!("stream {n} of mirror {mirror}")).with("mirror", mirror);
        Columns(&row.ok_or_else(lost)?).lsn("acknowledged")
    }

    /// Announces that rows of positions below this one are going to be sent. Call it before they are,
    /// in steps of 1 GiB of log, like a sequence's cache. It falls only by [`Catalog::settle_written_below`].
    ///
    /// # Errors
    /// LEASE_LOST.
    pub async fn raise_written_below(&self, mirror: &str, n: u32, lease: i64, position: Lsn) -> Result<()> {
        let set = "written_below = greatest(written_below, $4)";
        self.change(mirror, n, lease, set, &[&sql::pg_lsn(position)]).await
    }

    /// Writes down the health of a stream, with the reason if it is STALLED. Unconditional: housekeeping
    /// finds a stream stalled that no attempt runs for.
    ///
    /// # Errors
    /// MIRROR_NOT_FOUND.
    pub async fn set_verdict(
        &self,
        mirror: &str,
        n: u32,
        verdict: Verdict,
        reason: Option<&Error>,
    ) -> Result<()> {
        let failure = reason.map(Failure::new);
        let changed = sql::execute(
            &self.client().await?,
            "update streams set verdict = $3,
                verdict_since = case when verdict = $3 then verdict_since else now() end,
                reason = case when reason->>'code' = $4::jsonb->>'code'
                    and reason->>'message' = $4::jsonb->>'message' then reason else $4 end
             where mirror = $1 and n = $2",
            &[&mirror, &sql::integer(n), &verdict.as_str(), &failure.as_ref().map(sql::json)],
        )
        .await?;
        if changed > 0 { Ok(()) } else { Err(not_found(mirror, n)) }
    }

    /// Writes down how housekeeping saw a slot; none if it is not there.
    pub async fn record_slot_seen(&self, mirror: &str, n: u32, seen: Option<&SlotSeen>) -> Result<()> {
        let source_wal = seen.map(|seen| sql::pg_lsn(seen.look.current));
        sql::execute(
            &self.client().await?,
            "update streams set slot_seen = $3, source_wal = greatest(source_wal, $4),
                source_wal_at = case when $4 is null then source_wal_at else now() end
             where mirror = $1 and n = $2",
            &[&mirror, &sql::integer(n), &seen.map(sql::json), &source_wal],
        )
        .await
        .map(drop)
    }

    async fn change(
        &self,
        mirror: &str,
        n: u32,
        lease: i64,
        set: &str,
        values: sql::Params<'_>,
    ) -> Result<()> {
        let sql = format!("update streams set {set} where mirror = $1 and n = $2 and lease = $3");
        let number = sql::integer(n);
        let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&mirror, &number, &lease];
        parameters.extend(values);
        match sql::execute(&self.client().await?, &sql, &parameters).await? {
            0 => {
                Err(errors::lease_lost(format_args!("stream {n} of mirror {mirror}")).with("mirror", mirror))
            }
            _ => Ok(()),
        }
    }
}

/// The streams of these mirrors, in order of mirror and number.
pub(crate) async fn of_mirrors(client: &impl GenericClient, mirrors: &[String]) -> Result<Vec<Stream>> {
    let sql = format!("{SELECT} where mirror = any($1) order by mirror, n");
    sql::rows(client, &sql, &[&mirrors]).await?.iter().map(read).collect()
}

macro_rules! columns {
    () => {
        "mirror, n, slot, publication, system_id, timeline, position, hold, position_at, lease, lease_until, base,
            written_below, verdict, reason, verdict_since, last_commit_at, source_wal, source_wal_at,
            attended_at, caught_up_at, moved_at, rows_per_s, slot_seen"
    };
}

const COLUMNS: &str = columns!();
const SELECT: &str = concat!("select ", columns!(), " from streams");

fn read(row: &Row) -> Result<Stream> {
    let columns = Columns(row);
    let timeline: Option<i32> = columns.get("timeline")?;
    Ok(Stream {
        mirror: columns.text("mirror")?,
        n: columns.number("n")?,
        slot: columns.text("slot")?,
        publication: columns.text("publication")?,
        system_id: columns.get("system_id")?,
        timeline: timeline.and_then(|timeline| u32::try_from(timeline).ok()),
        position: columns.lsn_opt("position")?,
        hold: columns.lsn_opt("hold")?,
        position_at: columns.time_opt("position_at")?,
        lease: columns.get("lease")?,
        lease_until: columns.time_opt("lease_until")?,
        base: base(columns)?,
        written_below: columns.lsn("written_below")?,
        verdict: columns.word("verdict")?,
        reason: columns.json_opt("reason")?,
        verdict_since: columns.time("verdict_since")?,
        last_commit_at: columns.time_opt("last_commit_at")?,
        source_wal: columns.lsn_opt("source_wal")?,
        source_wal_at: columns.time_opt("source_wal_at")?,
        attended_at: columns.time_opt("attended_at")?,
        caught_up_at: columns.time_opt("caught_up_at")?,
        moved_at: columns.time_opt("moved_at")?,
        rows_per_s: columns.get("rows_per_s")?,
        slot_seen: columns.json_opt("slot_seen")?,
    })
}

/// What is added to positions in versions.
pub(crate) fn base(columns: Columns<'_>) -> Result<u64> {
    let base = columns.get::<Numeric>("base")?.0;
    u64::try_from(base).map_err(|_| errors::internal("the base of a stream exceeds 64 bits"))
}

fn not_found(mirror: &str, n: u32) -> Error {
    Error::new(Code::MirrorNotFound, format!("no mirror is called {mirror}, with a stream {n}"))
        .with("mirror", mirror)
}

/// Replaces the attempt of a table's stream: the next one knows what is written now.
pub(crate) async fn fence(client: &impl GenericClient, table_id: i64) -> Result<()> {
    sql::execute(
        client,
        "update streams s set lease = s.lease + 1 from mirror_tables t
         where t.id = $1 and s.mirror = t.mirror and s.n = t.stream",
        &[&table_id],
    )
    .await
    .map(drop)
}
