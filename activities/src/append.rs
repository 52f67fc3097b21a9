//! The copy of an append-only table, whose rows arrive exactly once.
//!
//! 1. A copy begins: the stream leaves the table out from here on, and what is acknowledged to the
//!    source is held. A repeat waits until nothing older can be under way.
//! 2. The epoch is taken. Whatever was written before, by copies or the stream, is of a version below
//!    the epoch's, so it can be told from what comes, and is deleted; what arrives late is swept when
//!    the copy ends.
//! 3. The snapshot is taken and stored, and the stream goes back to the held position. From there it
//!    delivers every transaction that the snapshot does not see, while the copy is running.
//! 4. The rows are read, in the transaction of that snapshot. Whatever interrupts this, another copier
//!    begins anew at 1.

use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::append::Append;
use millrace_catalog::partitions::Partition;
use millrace_replication::copy::{CopyOutcome, CopyProgress, whole};
use millrace_replication::postgres::describe::TableKind;
use millrace_replication::postgres::{Session, epoch};
use millrace_replication::table::TablePlan;
use millrace_replication::version::Version;
use millrace_terms::{Code, Result};

use crate::copy_partitions::{Held, Job, copy_job, range};
use crate::{apart, finish_copy, plan_partitions, stream};

/// How long an attempt of the stream that was replaced may still be sending.
const FENCED: Duration = stream::LEASE;

/// Copies the table.
///
/// # Errors
/// LEASE_LOST if another copies it, and those of the data plane. What was inserted is deleted by the next
/// copy.
pub(crate) async fn copy(
    job: &Job<'_>,
    plan: &TablePlan,
    partition: &Partition,
    session: &Session,
    held: &Held,
    progress: &CopyProgress,
) -> Result<CopyOutcome> {
    let (catalog, table_id) = (&job.environment.catalog, job.copy.table_id);
    let begun = catalog.begin_append(table_id, job.copy.copy_no, &partition.owner).await?;
    if begun.is_repeat {
        tokio::time::sleep(FENCED).await;
    }
    let shape = plan_partitions::shape(session, plan).await?;
    // By the name that it has now.
    let plan = Arc::new(TablePlan { source: shape.name, ..plan.clone() });
    let partitioned = shape.kind == TableKind::Partitioned;
    let epoch = epoch::take(session, &job.cancel, |_| ()).await?.0;
    let table = catalog.get_table(table_id).await?;
    let stream = catalog.get_stream(&job.copy.mirror, table.stream).await?;
    // Of a copy that is not over: then the base is that of the log on which the epoch was taken.
    let base = catalog.copy_state(table_id, job.copy.copy_no).await?.base;
    let version = Version::epoch(base, epoch);
    let destination = &job.destination;
    finish_copy::end_older_queries(destination, job.copy, &stream).await?;
    catalog.raise_swept_floor(table_id, job.copy.copy_no, version.0).await?;
    let purge = destination.clickhouse.purge(&plan, version.0, &destination.cluster);
    apart::purge(job.environment, table_id, purge).await?;
    let seen = match whole::begin(session, &plan, partitioned).await {
        Err(error) if error.code() == Code::TableSchemaChanged => return Ok(CopyOutcome::Reshaped(error)),
        seen => seen?,
    };
    let append =
        Append { table_id, run: begun.run, snapshot: seen.snapshot, seen_below: seen.seen_below, cut: None };
    catalog.go_back(&append, epoch).await?;
    let range = range(partition);
    let copying = copy_job(job, &plan, partition, &range, session, version, progress);
    whole::run(copying, partitioned, || held.holds()).await
}
