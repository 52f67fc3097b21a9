//! Carries out one step of a table: an insert or a physical delete. I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Lsn, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::append::Cut;
use super::apply::push_row;
use super::config::{Counts, Older, Report};
use super::lane::{Altering, Batch, PendingRow, Step};
use super::places::Places;
use super::position::BatchId;
use super::reselect;
use super::side::Side;
use crate::block::{Block, Nulled};
use crate::clickhouse::{Alter, Clickhouse, InsertId};
use crate::table::TablePlan;

/// Rows whose large values are asked for first, before it is known how large they are.
const KEYS_FIRST: usize = 16;
/// Most rows of one question.
const KEYS_MAX: usize = 1_000;
/// Bytes of values that one answer should hold: the next question is cut by what the last one found.
const ANSWER_BYTES: usize = 4 << 20;
/// Pauses between two attempts at a step.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// After so many refusals of a statement in words that we do not know, half a minute of trying, the
/// table is at fault: one bad table must not hold up the others for ever.
const REFUSALS_MAX: u32 = 10;

/// What all steps are carried out with.
#[derive(Debug)]
pub(super) struct Flusher {
    pub sink: Clickhouse,
    pub cluster: String,
    pub mirror: String,
    pub attempt: String,
    pub side: Arc<Side>,
    pub lease_deadline: watch::Receiver<Instant>,
    pub announced: watch::Receiver<Lsn>,
    pub cuts: watch::Receiver<BTreeMap<i64, Cut>>,
    pub followed: watch::Receiver<u64>,
    pub cancel: CancellationToken,
    pub older: Older,
    /// Bytes of one insert, more or less.
    pub max_bytes: usize,
    pub reports: mpsc::Sender<Report>,
    /// The attempts that may be under way at once.
    pub places: Places,
    /// Rows that were sent are the effect of commits below this position, and of no others. It is told
    /// when the stream ends, so that a log that forks soon afterwards is judged by it.
    pub written_below: AtomicU64,
    /// What is added to the positions in versions.
    pub base: u64,
}

/// A step that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub lane: usize,
    pub batch: BatchId,
    pub outcome: Result<Outcome>,
    pub took: Duration,
}

/// What a step did.
#[derive(Debug)]
pub(super) enum Outcome {
    Inserted { counts: Counts, bytes: u64, nulled: Nulled },
    Purged { below: u128 },
    Altered(Box<Altering>),
}

impl Flusher {
    /// Carries out a step, and repeats it while that may help.
    pub(super) async fn run(
        self: Arc<Self>,
        lane: usize,
        table: i64,
        plan: Arc<TablePlan>,
        step: Step,
    ) -> Ended {
        let began = Instant::now();
        let (batch, outcome) = match step {
            Step::Insert(batch) => {
                // The table may have another plan by now.
                let (id, plan) = (batch.id, batch.block.plan().clone());
                // The share of the worker's memory is given back with the batch.
                (id, self.insert(table, &plan, *batch).await)
            }
            Step::Purge { id, below, .. } => (id, self.purge(table, &plan, below).await),
            Step::Alter { id, altering, .. } => (id, self.alter(table, *altering).await),
        };
        Ended { lane, batch, outcome, took: began.elapsed() }
    }

    async fn insert(&self, table: i64, plan: &TablePlan, mut batch: Batch) -> Result<Outcome> {
        let (mut bytes, mut nulled) = (0, Nulled::new());
        let mut pending = std::mem::take(&mut batch.pending).into_iter();
        let mut keys = KEYS_FIRST;
        loop {
            let some: Vec<PendingRow> = pending.by_ref().take(keys).collect();
            if some.is_empty() {
                break;
            }
            keys = self.complete(table, plan, &mut batch, some).await?;
            // The values were not in the log, so nothing bounded them before.
            if batch.block.bytes() >= self.max_bytes {
                bytes += self.send(table, plan, &mut batch, &mut nulled).await?;
            }
        }
        if batch.block.rows() > 0 {
            bytes += self.send(table, plan, &mut batch, &mut nulled).await?;
        }
        Ok(Outcome::Inserted { counts: batch.counts, bytes, nulled })
    }

    /// Sends the rows that are whole; returns their bytes.
    async fn send(
        &self,
        table: i64,
        plan: &TablePlan,
        batch: &mut Batch,
        nulled: &mut Nulled,
    ) -> Result<u64> {
        self.may_write(batch.to).await?;
        let mut body = Vec::new();
        batch.block.encode_native(now_micros(), &mut body)?;
        batch.block.count_nulled(nulled);
        // Its memory is given back, not kept: only the body counts as the batch's while it is being sent.
        batch.block = Block::new(batch.block.plan().clone(), self.sink.time_range());
        let body = Bytes::from(body);
        batch.share.set(body.len());
        fault::here(Point::BatchEncoded);
        let insert = InsertId {
            mirror: self.mirror.clone(),
            attempt: self.attempt.clone(),
            table: plan.destination.clone(),
            position: format!("{:X}", batch.from.0),
        };
        let gate = || self.holds_lease();
        match &batch.cut {
            None => self.repeat(table, || self.sink.insert(plan, body.clone(), &insert, gate)).await?,
            Some((cut, token)) => {
                self.store_cut(table, *cut).await?;
                let token = format!("{}/{table}/{token}", self.mirror);
                let send = || self.sink.insert_once(plan, body.clone(), &insert, &token, gate);
                self.repeat(table, send).await?;
            }
        }
        fault::here(Point::BatchInserted);
        Ok(body.len() as u64)
    }

    /// Waits until it is stored that effects of this commit may have been written. After a failover to a
    /// log that forked before it, they would be those of changes that never were.
    async fn may_write(&self, commit: Lsn) -> Result<()> {
        let mut announced = self.announced.clone();
        let stopped = |what| Error::new(Code::Cancelled, what);
        tokio::select! {
            biased; // A stream that drains sends what it may.
            told = announced.wait_for(|announced| commit < *announced) => {
                told.map(drop).map_err(|_| stopped("nobody announces what the stream writes any more"))?;
            }
            () = self.cancel.cancelled() => return Err(stopped("the stream ends")),
        }
        self.written_below.fetch_max(commit.0 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Asks that what was read of the source up to there may be written, if it lies beyond what is announced.
    async fn ask_to_write(&self, lsn: Lsn) -> Result<()> {
        if lsn < *self.announced.borrow() {
            return Ok(());
        }
        let asked = self.reports.send(Report::Ahead { lsn }).await;
        asked.map_err(|_| Error::new(Code::Cancelled, "nobody listens to the stream's reports any more"))
    }

    /// Waits until the cut of a batch of an append-only table is stored: only what is cut at the same
    /// place is recognised as a repeat.
    async fn store_cut(&self, table: i64, cut: Cut) -> Result<()> {
        let stopped = |what| Error::new(Code::Cancelled, what);
        let mut cuts = self.cuts.clone();
        if self.reports.send(Report::Cut { id: table, cut }).await.is_err() {
            return Err(stopped("nobody stores what the stream cuts any more"));
        }
        let told = cuts.wait_for(|cuts| cuts.get(&table) == Some(&cut)).await;
        told.map(drop).map_err(|_| stopped("nobody stores what the stream cuts any more"))
    }

    /// Completes rows and adds them to the batch. Returns how many to ask for the next time.
    async fn complete(
        &self,
        table: i64,
        plan: &TablePlan,
        batch: &mut Batch,
        pending: Vec<PendingRow>,
    ) -> Result<usize> {
        let (asked, before) = (pending.len(), batch.block.bytes());
        // The rows share their bytes: a copy for a repeat is cheap.
        let (whole, read_end) = self
            .repeat(table, || reselect::complete(&self.side, plan, pending.clone(), &self.cancel))
            .await?;
        // A value may be that of a later commit than the row's own.
        self.ask_to_write(read_end).await?;
        self.may_write(read_end).await?;
        for pending in whole {
            push_row(&mut batch.block, &pending.row, pending.stamp)?;
        }
        batch.account();
        let row_bytes = (batch.block.bytes() - before).div_ceil(asked).max(1);
        Ok((ANSWER_BYTES / row_bytes).clamp(1, KEYS_MAX))
    }

    async fn purge(&self, table: i64, plan: &TablePlan, below: u128) -> Result<Outcome> {
        let commit = u64::try_from(below >> 64).unwrap_or(u64::MAX).saturating_sub(self.base);
        self.may_write(Lsn(commit)).await?;
        // What an older attempt, or a repeated try of this one, still inserts would come back for ever.
        self.outlive_older().await?;
        self.repeat(table, || async {
            self.end_inserts(plan).await?;
            if !self.holds_lease() {
                return Err(Error::new(Code::LeaseLost, "the lease ended before a physical delete"));
            }
            self.sink.purge(plan, below, &self.cluster).await
        })
        .await?;
        fault::here(Point::Truncated);
        Ok(Outcome::Purged { below })
    }

    /// Waits until no older attempt can be sending.
    async fn outlive_older(&self) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep_until(self.older.until) => Ok(()),
            () = self.cancel.cancelled() => {
                Err(Error::new(Code::Cancelled, "the stream ended while it waited for an older one"))
            }
        }
    }

    /// Ends what older attempts, or repeated tries of this one, still insert into the table.
    async fn end_inserts(&self, plan: &TablePlan) -> Result<()> {
        let own = format!("{}{}/", InsertId::attempt_prefix(&self.mirror, &self.attempt), plan.destination);
        for prefix in self.older.inserts.iter().chain([&own]) {
            self.sink.kill_queries(prefix, &self.cluster).await?;
        }
        Ok(())
    }

    async fn alter(&self, table: i64, altering: Altering) -> Result<Outcome> {
        let Altering { plan, alters, ticket, .. } = &altering;
        let mut followed = self.followed.clone();
        tokio::select! {
            biased; // A stream that drains does what it may.
            stored = followed.wait_for(|stored| stored >= ticket) => stored.map(drop).map_err(|_| unstored())?,
            () = self.cancel.cancelled() => return Err(unstored()),
        }
        if alters.iter().any(|alter| matches!(alter, Alter::Rename { .. })) {
            // What is inserted while a column is renamed has its values under a name that is none any more.
            self.outlive_older().await?;
            self.repeat(table, || self.end_inserts(plan)).await?;
        }
        self.repeat(table, || self.sink.alter(plan, alters, &self.cluster, || self.holds_lease())).await?;
        Ok(Outcome::Altered(Box::new(altering)))
    }

    fn holds_lease(&self) -> bool {
        Instant::now() < *self.lease_deadline.borrow()
    }

    /// Does something until it succeeds, fails for good, or the stream ends.
    async fn repeat<T, F: Future<Output = Result<T>>>(
        &self,
        table: i64,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let mut pause = RETRY_MIN;
        let mut refusals = 0;
        let mut place = self.places.take().await?;
        loop {
            let error = match attempt().await {
                Err(error) if error.is_retryable() && error.code() != Code::Cancelled => error,
                result => return result,
            };
            refusals += u32::from(error.code() == Code::DestinationError);
            if refusals >= REFUSALS_MAX {
                return Err(error);
            }
            // Only for the status: it may be missed, but must not stop us.
            let _ = self.reports.try_send(Report::Waiting { id: table, error: error.clone() });
            // Others may use the place meanwhile: a table that the destination refuses must not keep the
            // other tables' rows from it.
            let paused = place.leave();
            tokio::select! {
                // Not the error: it must not put the table into ERROR when the next attempt may succeed.
                () = self.cancel.cancelled() => {
                    return Err(Error::new(Code::Cancelled, "the stream ended while a step was to be repeated"));
                }
                () = tokio::time::sleep(pause) => {}
            }
            place = paused.come_back().await?;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

fn unstored() -> Error {
    Error::new(Code::Cancelled, "the stream ended before a table's new plan was stored")
}

/// Whether a failure is of the table at hand; otherwise the stream cannot go on.
pub(super) fn is_of_table(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::ValueUnrepresentable
            | Code::ProtocolViolation
            | Code::TableSchemaChanged
            | Code::TableUnsupported
            | Code::TableWithoutKey
            | Code::SourceTableMissing
            | Code::SourcePermission
            | Code::DestinationTableChanged
            | Code::DestinationTableExists
            | Code::DestinationPermission
            | Code::DestinationError
    )
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
