//! Carries out one step of a table: an insert or a physical delete. I/O.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millrace_terms::{Code, Error, Lsn, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apply::push_row;
use super::config::{Counts, Report};
use super::lane::{Batch, PendingRow, Step};
use super::position::BatchId;
use super::reselect;
use super::side::Side;
use crate::clickhouse::{Clickhouse, InsertId};
use crate::table::TablePlan;

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
    pub cancel: CancellationToken,
    pub reports: mpsc::Sender<Report>,
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
    Inserted { counts: Counts, bytes: u64 },
    Purged { below: u128 },
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
                let id = batch.id;
                // The share of the worker's memory is given back with the batch.
                (id, self.insert(table, &plan, *batch).await)
            }
            Step::Purge { id, below, .. } => (id, self.purge(table, &plan, below).await),
        };
        Ended { lane, batch, outcome, took: began.elapsed() }
    }

    async fn insert(&self, table: i64, plan: &TablePlan, mut batch: Batch) -> Result<Outcome> {
        if !batch.pending.is_empty() {
            let pending = std::mem::take(&mut batch.pending);
            self.complete(table, plan, &mut batch, pending).await?;
        }
        let counts = batch.counts;
        if batch.block.rows() == 0 {
            return Ok(Outcome::Inserted { counts, bytes: 0 });
        }
        self.wait_announced(batch.to).await?;
        let mut body = Vec::new();
        batch.block.encode_native(now_micros(), &mut body)?;
        batch.block.warn_nulled();
        let Batch { block, mut share, from, .. } = batch;
        drop(block);
        let body = Bytes::from(body);
        share.set(body.len());
        let insert = InsertId {
            mirror: self.mirror.clone(),
            attempt: self.attempt.clone(),
            table: plan.destination.clone(),
            position: format!("{:X}", from.0),
        };
        self.repeat(table, || self.sink.insert(plan, body.clone(), &insert, || self.holds_lease())).await?;
        drop(share);
        Ok(Outcome::Inserted { counts, bytes: body.len() as u64 })
    }

    /// Waits until it is stored that rows of this commit may have been written. After a failover to a
    /// log that forked before it, they would be rows of changes that never were.
    async fn wait_announced(&self, commit: Lsn) -> Result<()> {
        let mut announced = self.announced.clone();
        let stopped = |what| Error::new(Code::Cancelled, what);
        tokio::select! {
            biased; // A stream that drains sends what it may.
            told = announced.wait_for(|announced| commit < *announced) => {
                told.map(drop).map_err(|_| stopped("nobody announces what the stream writes any more"))
            }
            () = self.cancel.cancelled() => Err(stopped("the stream ends")),
        }
    }

    async fn complete(
        &self,
        table: i64,
        plan: &TablePlan,
        batch: &mut Batch,
        pending: Vec<PendingRow>,
    ) -> Result<()> {
        // The rows share their bytes: a copy for a repeat is cheap.
        let whole = self
            .repeat(table, || reselect::complete(&self.side, plan, pending.clone(), &self.cancel))
            .await?;
        for pending in whole {
            push_row(&mut batch.block, &pending.row, pending.version)?;
        }
        batch.account();
        Ok(())
    }

    async fn purge(&self, table: i64, plan: &TablePlan, below: u128) -> Result<Outcome> {
        self.repeat(table, || async {
            if !self.holds_lease() {
                return Err(Error::new(Code::LeaseLost, "the lease ended before a physical delete"));
            }
            self.sink.purge(plan, below, &self.cluster).await
        })
        .await?;
        Ok(Outcome::Purged { below })
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
            tokio::select! {
                () = self.cancel.cancelled() => return Err(error),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
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
            | Code::DestinationError
    )
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
