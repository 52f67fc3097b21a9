//! One copier: it takes partitions from the catalog's queue, one by one, until none is left.
//!
//! Each partition is copied by the plan as it is stored then: the stream may have followed a change of
//! the table since the last one. It stores the new plan first, with what is to be done in ClickHouse, and
//! alters ClickHouse's table second. So a copier waits until nothing is left to be done, and compares the
//! stored plan again when its rows are acknowledged: where a column that it wrote to is another by then,
//! the partition is copied once more. Its rows replace those of the first time, being of the same version
//! and inserted later.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::partitions::{Claim, Partition};
use millrace_replication::clickhouse::InsertId;
use millrace_replication::copy::{self, CopyJob, CopyLimits, CopyOutcome, CopyProgress};
use millrace_replication::postgres::Session;
use millrace_replication::postgres::partition::Partition as Range;
use millrace_replication::table::TablePlan;
use millrace_replication::version::Version;
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{Copier, CopierReport, TableCopy};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::environment::{Destination, Environment};
use crate::metrics::Labels;
use crate::reshaped::Reshaped;
use crate::{alive, append, plan_partitions};

/// How long a partition is leased: what a killed copier costs the partition it held. Renewed four
/// times as often, so that three statements may fail.
const LEASE: Duration = Duration::from_secs(8);

/// Time between two renewals, which also write down the progress.
const RENEWAL: Duration = Duration::from_secs(2);

/// Time between two questions for work, when there is none now.
const WAIT: Duration = Duration::from_millis(500);

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::CopyPartitions)]
    pub(crate) async fn copy_partitions(
        self: Arc<Self>,
        ctx: ActivityContext,
        copier: Copier,
    ) -> Result<CopierReport, ActivityError> {
        let info = ctx.info();
        let run = info.workflow_run_id.as_deref().unwrap_or_default();
        let owner = format!("{}/{run}/{}/{}", self.0.worker, info.activity_id, info.attempt);
        let reshaped = Reshaped::of(&ctx, &self.0, &copier.copy);
        let report = alive::draining(&ctx, |cancel| {
            Box::pin(copy_all(&self.0, &copier.copy, &reshaped, owner, cancel))
        })
        .await;
        if ctx.is_cancelled() {
            return Err(ActivityError::cancelled());
        }
        self.0.outcome(&ctx, &copier.copy.mirror, Some(&copier.copy.table), report).await
    }
}

/// What all partitions of one copier have in common.
pub(crate) struct Job<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) copy: &'a TableCopy,
    pub(crate) stream: u32,
    owner: String,
    mirror: Mirror,
    pub(crate) destination: Destination,
    version: Version,
    pub(crate) cancel: CancellationToken,
}

async fn copy_all(
    environment: &Environment,
    copy: &TableCopy,
    reshaped: &Reshaped<'_>,
    owner: String,
    cancel: CancellationToken,
) -> Result<CopierReport> {
    let catalog = &environment.catalog;
    let mirror = catalog.get_mirror(&copy.mirror).await?;
    let state = catalog.copy_state(copy.table_id, copy.copy_no).await?;
    let epoch = state.epoch.ok_or_else(|| Error::new(Code::Internal, "the copy has no epoch"))?;
    let stream = catalog.get_table(copy.table_id).await?.stream;
    let destination = environment.destination(&mirror).await?;
    let version = Version::epoch(state.base, epoch);
    let job = Job { environment, copy, stream, owner, mirror, destination, version, cancel };

    let mut report = CopierReport { partitions: 0, rows: 0 };
    let mut session = None;
    while !job.cancel.is_cancelled() {
        let parallel = job.mirror.spec.settings.snapshot.parallel_partitions;
        match catalog.claim_partition(copy.table_id, copy.copy_no, &job.owner, LEASE, parallel).await? {
            Claim::Done => break,
            Claim::Wait => tokio::select! {
                () = job.cancel.cancelled() => break,
                () = tokio::time::sleep(WAIT) => {}
            },
            Claim::Partition(partition) => {
                if let Some(rows) = copy_one(&job, &partition, reshaped, &mut session).await? {
                    report.partitions += 1;
                    report.rows += rows;
                }
            }
        }
    }
    Ok(report)
}

/// Copies one partition; `None` if it was taken away or replaced, and others see to it.
async fn copy_one(
    job: &Job<'_>,
    partition: &Partition,
    reshaped: &Reshaped<'_>,
    session: &mut Option<Session>,
) -> Result<Option<u64>> {
    let catalog = &job.environment.catalog;
    let open = match session.take() {
        Some(open) => open,
        None => job.environment.dial_log(&job.mirror, job.stream).await?,
    };
    match under_lease(job, partition, &open).await {
        Ok(CopyOutcome::Done { rows, bytes, read_end, nulled }) => {
            *session = Some(open);
            fault::here(Point::PartitionCopied);
            match catalog.finish_partition(partition, rows, bytes, read_end).await {
                Ok(()) => {
                    fault::here(Point::PartitionFinished);
                    job.environment
                        .metrics
                        .copied_rows
                        .get_or_create(&Labels::of(&job.copy.mirror))
                        .inc_by(rows);
                    if !nulled.is_empty() {
                        job.environment.count_nulled(&job.copy.mirror, job.copy.table_id, &nulled).await?;
                    }
                    Ok(Some(rows))
                }
                Err(error) => taken_away(error),
            }
        }
        Ok(CopyOutcome::Rewritten) => {
            match replan(job, partition, &open).await {
                Err(error) if error.code() == Code::TableSchemaChanged => {
                    return Err(follow(job, reshaped, error).await);
                }
                planned => planned?,
            }
            *session = Some(open);
            Ok(None)
        }
        Ok(CopyOutcome::Reshaped(why)) => Err(follow(job, reshaped, why).await),
        // The session may stand in the middle of a COPY: it is closed with its transaction.
        Err(error) if error.code() == Code::LeaseLost => Ok(None),
        Err(error) => {
            // The next who asks gets it at once. If that cannot be written, its lease runs out.
            let _runs_out = catalog.release_partition(partition).await;
            Err(error)
        }
    }
}

fn taken_away(error: Error) -> Result<Option<u64>> {
    if error.code() == Code::LeaseLost { Ok(None) } else { Err(error) }
}

/// The lease of a partition, by our own clock.
pub(crate) struct Held {
    begun: Instant,
    /// Milliseconds since `begun` until which it is held.
    until: AtomicU64,
}

impl Held {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), until: AtomicU64::new(LEASE.as_millis() as u64) }
    }

    pub(crate) fn holds(&self) -> bool {
        (self.begun.elapsed().as_millis() as u64) < self.until.load(Ordering::Relaxed)
    }

    /// Renews it until that is refused, and gives the refusal.
    pub(crate) async fn renew(
        &self,
        environment: &Environment,
        partition: &Partition,
        progress: &CopyProgress,
    ) -> Error {
        loop {
            tokio::time::sleep(RENEWAL).await;
            let asked = self.begun.elapsed();
            let (rows, bytes) = (progress.rows_read(), progress.bytes_read());
            match environment.catalog.renew_partition(partition, LEASE, rows, bytes).await {
                Ok(()) => self.until.store((asked + LEASE).as_millis() as u64, Ordering::Relaxed),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(error = %error, "the lease of a partition could not be renewed");
                }
                Err(error) => return error,
            }
        }
    }
}

/// Copies while renewing the lease; what is sent after it ran out is refused by the gate.
async fn under_lease(job: &Job<'_>, partition: &Partition, session: &Session) -> Result<CopyOutcome> {
    let (held, progress) = (Held::new(), CopyProgress::default());
    let copying = async {
        let plan = settled(job).await?;
        match plan.append_only {
            true => append::copy(job, &plan, partition, session, &held, &progress).await,
            false => copy_range(job, plan, partition, session, &held, &progress).await,
        }
    };
    tokio::select! {
        outcome = copying => outcome,
        error = held.renew(job.environment, partition, &progress) => Err(error),
    }
}

async fn copy_range(
    job: &Job<'_>,
    mut plan: Arc<TablePlan>,
    partition: &Partition,
    session: &Session,
    held: &Held,
    progress: &CopyProgress,
) -> Result<CopyOutcome> {
    let range = range(partition);
    loop {
        let copied =
            copy::run(copy_job(job, &plan, partition, &range, session, job.version, progress), || {
                held.holds()
            })
            .await;
        let now = settled(job).await?;
        let is_other = !plan.goes_into(&now);
        match copied {
            Ok(CopyOutcome::Done { .. }) if is_other => plan = now,
            // Whatever the destination said: it was asked by a plan that it does not fit any more.
            Err(error) if is_other && !error.is_retryable() => {
                let text = format!("{} was altered during its copy: {}", plan.source, error.message());
                return Err(Error::new(Code::SourceBlocked, text));
            }
            copied => return copied,
        }
    }
}

/// The plan of the table, when ClickHouse's table fits it.
async fn settled(job: &Job<'_>) -> Result<Arc<TablePlan>> {
    loop {
        let plan = job.environment.plan(job.copy.table_id).await?;
        if plan.seen.pending.is_empty() {
            return Ok(Arc::new(plan));
        }
        tokio::select! {
            () = job.cancel.cancelled() => return Err(told_to_stop()),
            () = tokio::time::sleep(WAIT) => {}
        }
    }
}

fn told_to_stop() -> Error {
    Error::new(Code::Cancelled, "told to stop")
}

/// Has the copy begin anew with another plan.
async fn follow(job: &Job<'_>, reshaped: &Reshaped<'_>, why: Error) -> Error {
    tokio::select! {
        over = reshaped.follow(&job.mirror, why) => over,
        () = job.cancel.cancelled() => told_to_stop(),
    }
}

/// What the data plane needs for a range.
pub(crate) fn copy_job<'a>(
    job: &'a Job<'_>,
    plan: &'a Arc<TablePlan>,
    partition: &Partition,
    range: &'a Range,
    session: &'a Session,
    version: Version,
    progress: &'a CopyProgress,
) -> CopyJob<'a> {
    CopyJob {
        session,
        sink: &job.destination.clickhouse,
        plan,
        partition: range,
        version,
        id: InsertId {
            mirror: job.copy.mirror.clone(),
            attempt: attempt(job.copy.table_id, job.copy.copy_no),
            table: plan.destination.clone(),
            position: partition.no.to_string(),
        },
        limits: CopyLimits::default(),
        progress,
        cancel: &job.cancel,
    }
}

/// Names the inserts of one copy, so that a newer one can end those still running.
pub(crate) fn attempt(table_id: i64, copy_no: u32) -> String {
    format!("copy.{table_id}.{copy_no}")
}

pub(crate) fn range(partition: &Partition) -> Range {
    // A table has less than 2^32 blocks; the catalog's integers are wider because SQL has no unsigned.
    let block = |block: u64| u32::try_from(block).unwrap_or(u32::MAX);
    Range {
        leaf: partition.range.leaf.clone(),
        leaf_oid: partition.range.leaf_oid,
        filenode: partition.range.filenode,
        first_block: block(partition.range.first_block),
        end_block: partition.range.end_block.map(block),
    }
}

/// The leaf was rewritten, and its rows moved without a change in the log: all of it is read again.
async fn replan(job: &Job<'_>, partition: &Partition, session: &Session) -> Result<()> {
    let plan = job.environment.plan(job.copy.table_id).await?;
    let shape = plan_partitions::shape(session, &plan).await?;
    let leaves: Vec<_> =
        shape.leaves.into_iter().filter(|leaf| leaf.oid == partition.range.leaf_oid).collect();
    let leaf = &partition.range.leaf;
    tracing::info!(%leaf, "the table was rewritten during its copy: it is planned again");
    let cut = plan_partitions::cut(session, &job.mirror, &leaves, shape.bytes).await?;
    let (leaf, filenode) = (partition.range.leaf_oid, partition.range.filenode);
    job.environment.catalog.replan_leaf(job.copy.table_id, job.copy.copy_no, leaf, filenode, &cut).await
}
