//! One that compares: it takes ranges from the catalog's queue until none is left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::verifications::Verification;
use millrace_catalog::verified_ranges::{RangeClaim, VerifiedRange};
use millrace_replication::postgres::Session;
use millrace_replication::table::TablePlan;
use millrace_replication::verify::{Order, split};
use millrace_terms::{Code, Error, Lsn, Result};
use millrace_workflows::payload::{ComparerReport, VerifyRef};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{id_of, one, plan};
use crate::environment::{Destination, Environment};
use crate::plan_partitions;

/// How long a range is leased: what a killed worker costs the range that it held.
const LEASE: Duration = Duration::from_secs(8);
/// Time between two renewals.
const RENEWAL: Duration = Duration::from_secs(2);
/// Time between two questions for work, when there is none now.
const WAIT: Duration = Duration::from_millis(500);
/// Time between two looks at the stream's position, which is written twice a second.
const POLL: Duration = Duration::from_millis(100);

/// What all ranges of one comparer have in common.
pub(super) struct Job<'a> {
    pub(super) environment: &'a Environment,
    pub(super) mirror: Mirror,
    pub(super) verification: Verification,
    pub(super) destination: Destination,
    pub(super) cancel: CancellationToken,
}

/// A table as it is compared.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) plan: Arc<TablePlan>,
    pub(super) order: Order,
    pub(super) with_heirs: bool,
}

/// Compares until nothing is left.
pub(super) async fn compare_all(
    environment: &Environment,
    verify: &VerifyRef,
    owner: String,
    cancel: CancellationToken,
) -> Result<ComparerReport> {
    let (catalog, id) = (&environment.catalog, id_of(verify)?);
    let mirror = catalog.get_mirror(&verify.mirror).await?;
    let verification = catalog.get_verification(&verify.mirror, id).await?;
    let destination = environment.destination(&mirror).await?;
    let job = Job { environment, mirror, verification, destination, cancel };
    let (mut known, mut session, mut ranges) = (HashMap::new(), None, 0);
    while !job.cancel.is_cancelled() {
        match catalog.claim_range(id, &owner, LEASE).await? {
            RangeClaim::Done => break,
            RangeClaim::Wait => tokio::select! {
                () = job.cancel.cancelled() => break,
                () = tokio::time::sleep(WAIT) => {}
            },
            RangeClaim::Range(range) => {
                let begun = Instant::now();
                let rows = Box::pin(job.range(&range, &mut known, &mut session)).await?;
                ranges += 1;
                job.throttle(rows, begun).await;
            }
        }
    }
    Ok(ComparerReport { ranges })
}

/// Tables that were looked at, by their numbers.
type Tables = HashMap<i64, Known>;

impl Job<'_> {
    /// Compares a range; gives the rows read. A table that cannot be compared is skipped.
    async fn range(
        &self,
        range: &VerifiedRange,
        known: &mut Tables,
        session: &mut Option<Session>,
    ) -> Result<u64> {
        let catalog = &self.environment.catalog;
        let compared = tokio::select! {
            compared = self.compare(range, known, session) => compared,
            error = self.hold(range) => Err(error),
            () = self.cancel.cancelled() => Err(Error::new(Code::Cancelled, "told to stop")),
        };
        let error = match compared {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        // The session may stand in the middle of a COPY: it is closed with its transaction.
        *session = None;
        known.remove(&range.table_id);
        match error.code() {
            Code::LeaseLost => Ok(0),
            // The mirror is gone, and the comparison with it.
            Code::MirrorNotFound | Code::VerificationNotFound => Err(error),
            Code::Cancelled => {
                let _runs_out = catalog.release_range(range).await;
                Err(error)
            }
            code if code.is_retryable() && code != Code::SourceBlocked => {
                // The next who asks gets it at once. If that cannot be written, its lease runs out.
                let _runs_out = catalog.release_range(range).await;
                Err(error)
            }
            _ => {
                let why = format!("{} ({})", error.message(), error.code());
                catalog.skip_verified_table(range.verification, range.table_id, &why).await?;
                Ok(0)
            }
        }
    }

    async fn compare(
        &self,
        range: &VerifiedRange,
        known: &mut Tables,
        session: &mut Option<Session>,
    ) -> Result<u64> {
        let catalog = &self.environment.catalog;
        let table = catalog.get_table(range.table_id).await?;
        self.require_comparable(range.table_id).await?;
        let open = match session.take() {
            Some(open) => open,
            None => self.environment.dial_log(&self.mirror, table.stream).await?,
        };
        // The stream may have followed the source since.
        let plan = self.environment.plan(range.table_id).await?;
        let table_now = match known.get(&range.table_id) {
            Some(known) if *known.plan == plan => known.clone(),
            _ => {
                let looked = look(&open, plan).await?;
                known.insert(range.table_id, looked.clone());
                looked
            }
        };
        let stream = catalog.get_stream(self.mirror.name(), table.stream).await?;
        let (told, position) = watch::channel(stream.position.unwrap_or(Lsn::ZERO));
        let question = one::Range { range, table: &table_now, base: stream.base, position };
        let rows = tokio::select! {
            rows = one::compare(self, &question, &open) => rows?,
            error = self.follow(range.table_id, table.stream, stream.base, told) => return Err(error),
        };
        *session = Some(open);
        Ok(rows)
    }

    /// Renews the lease until that is refused, and gives the refusal.
    async fn hold(&self, range: &VerifiedRange) -> Error {
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.environment.catalog.renew_range(range, LEASE).await {
                Ok(()) => {}
                Err(error) if error.is_retryable() && error.code() != Code::LeaseLost => {
                    tracing::warn!(error = %error, "the lease of a range could not be renewed");
                }
                Err(error) => return error,
            }
        }
    }

    /// Tells the stream's position for as long as the table can be compared, and gives what ends that.
    async fn follow(&self, table_id: i64, n: u32, base: u64, told: watch::Sender<Lsn>) -> Error {
        loop {
            tokio::time::sleep(POLL).await;
            let stream = match self.environment.catalog.get_stream(self.mirror.name(), n).await {
                Ok(stream) => stream,
                Err(error) if error.is_retryable() => continue,
                Err(error) => return error,
            };
            if stream.base != base {
                return Error::new(Code::MirrorState, "the stream began anew, and the table is copied again");
            }
            told.send_replace(stream.position.unwrap_or(Lsn::ZERO));
            match self.require_comparable(table_id).await {
                Err(error) if !error.is_retryable() => return error,
                _ => {}
            }
        }
    }

    async fn require_comparable(&self, table_id: i64) -> Result<()> {
        let mirror = self.environment.catalog.get_mirror(self.mirror.name()).await?;
        let table = mirror.tables.iter().find(|table| table.id == table_id);
        let obstacle = match table {
            Some(table) => plan::obstacle(&mirror, table),
            None => Some("the table left the mirror".to_owned()),
        };
        obstacle.map_or(Ok(()), |why| Err(Error::new(Code::MirrorState, why)))
    }

    /// Waits until the rows may have been read, at the rate that is asked for.
    async fn throttle(&self, rows: u64, begun: Instant) {
        let rate = self.verification.spec.rows_per_second;
        if rate > 0 {
            // Two compare at once.
            let due = begun + Duration::from_secs_f64(2.0 * rows as f64 / rate as f64);
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }
}

/// Looks at a table on the source.
async fn look(session: &Session, plan: TablePlan) -> Result<Known> {
    let shape = plan_partitions::shape(session, &plan).await?;
    if let Some(why) = plan::unfollowed(&plan, &shape) {
        return Err(Error::new(Code::TableSchemaChanged, why));
    }
    let order = split::order(session, &plan).await?;
    Ok(Known { plan: Arc::new(plan), order, with_heirs: split::with_heirs(&shape) })
}
