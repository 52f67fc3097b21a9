//! The copy of a table whose rows arrive exactly once: one transaction, one snapshot. I/O.
//!
//! Its rows have nothing by which a second copy of them would replace the first, so it cannot be read
//! in parts, each seen at another time. A transaction that the snapshot sees is in the copy; every other
//! one must be delivered by the stream. It is, if the stream goes back to a position from before the
//! epoch (`postgres::epoch`), and the snapshot is taken after it: what the snapshot does not see was not
//! over when the epoch's wait ended, so its commit lies above.

use std::sync::Arc;

use millrace_terms::{Code, Error, Lsn, Result};

use super::{CopyJob, CopyOutcome, Transferred, lock, shape, sql, transfer};
use crate::postgres::{Session, from_sql};
use crate::stream::Snapshot;
use crate::table::TablePlan;

/// What a copy sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `pg_current_snapshot()`, as the server writes it.
    pub snapshot: String,
    /// Every transaction that it sees is of a commit below.
    pub seen_below: Lsn,
}

/// Begins the copy's transaction on a session with none open. `partitioned` says whether the rows are in
/// partitions. After an error the session must be closed.
///
/// # Errors
/// `TABLE_SCHEMA_CHANGED` if the table is not as it was planned: it is to be planned and copied anew. Those
/// of [`from_sql`].
pub async fn begin(session: &Session, plan: &Arc<TablePlan>, partitioned: bool) -> Result<Seen> {
    let statement = sql::begin_whole(&relation(plan, partitioned), plan.oid);
    let messages = session.simple_query(&statement).await;
    let messages = messages.map_err(|error| from_sql("beginning the copy", &error))?;
    let mut rows = lock::rows(&messages);
    let row = rows.next().and_then(|row| Some((row.get(0)?.to_owned(), row.get(1)?.parse().ok()?)));
    let untold = || Error::new(Code::SourceError, "the source did not tell the snapshot of the copy");
    let (snapshot, seen_below) = row.ok_or_else(untold)?;
    Snapshot::parse(&snapshot)?;
    let columns: Vec<_> = rows.map(lock::column).collect::<Result<_>>()?;
    shape::same(plan, &columns)?;
    Ok(Seen { snapshot, seen_below })
}

/// Copies everything, in the transaction that [`begin`] began, and ends it. The job's partition is not
/// looked at. What was inserted when it fails is there: the next copy must delete it.
///
/// # Errors
/// As [`super::run`].
pub async fn run(job: CopyJob<'_>, partitioned: bool, gate: impl Fn() -> bool) -> Result<CopyOutcome> {
    let statement = sql::copy_whole(&job.plan.columns, &relation(job.plan, partitioned));
    let copying = async {
        let Transferred { rows, bytes, nulled } = transfer(&job, job.plan, &statement, gate).await?;
        Ok(CopyOutcome::Done { rows, bytes, read_end: lock::end(job.session).await?, nulled })
    };
    tokio::select! {
        biased;
        () = job.cancel.cancelled() => {
            Err(Error::new(Code::Cancelled, format!("the copy of {} was cancelled", job.plan.source)))
        }
        outcome = copying => {
            outcome.map_err(|error: Error| error.context(format_args!("copying {}", job.plan.source)))
        }
    }
}

/// The rows of an ordinary table only: what inherits from it is another table.
fn relation(plan: &TablePlan, partitioned: bool) -> String {
    format!("{}{}", if partitioned { "" } else { "only " }, plan.source.to_sql())
}
