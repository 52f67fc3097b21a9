//! The end of a copy: wait for the stream, sweep, and let the table stream; or put it into ERROR.
//!
//! The sweep deletes physically what older copies and a TRUNCATE left behind. A late insert of an
//! attempt that was replaced could bring such rows back, so before it nothing older may be alive:
//! the leases of those attempts are over, and their queries are ended.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::streams::Stream;
use millrace_replication::clickhouse::InsertId;
use millrace_replication::version::Version;
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, EventCode, Lsn, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{CopyFailure, CopyResult, TableCopy};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::{Destination, Environment};
use crate::stream::{LEASE, attempt as stream_attempt};
use crate::{alive, apart, copy_partitions, failure};

/// Time between two looks at the stream's position. The stream writes it twice a second.
const POLL: Duration = Duration::from_millis(250);

/// Attempts and copies before the present one whose queries are ended. Older ones are long dead:
/// each of these has outlived a lease of its own.
const OLDER: u32 = 5;

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::FinishCopy)]
    pub(crate) async fn finish_copy(
        self: Arc<Self>,
        ctx: ActivityContext,
        copy: TableCopy,
    ) -> Result<CopyResult, ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(finish(&self.0, &copy))).await;
        self.0.outcome(&ctx, &copy.mirror, Some(&copy.table), done).await
    }

    #[activity(definition = contract::FailCopy)]
    pub(crate) async fn fail_copy(
        self: Arc<Self>,
        _ctx: ActivityContext,
        failed: CopyFailure,
    ) -> Result<(), ActivityError> {
        fail(&self.0, &failed).await.map_err(failure::of)
    }
}

async fn finish(environment: &Environment, copy: &TableCopy) -> Result<CopyResult> {
    let catalog = &environment.catalog;
    let state = match catalog.copy_state(copy.table_id, copy.copy_no).await {
        // An attempt before this one may have finished it, and died before it could say so.
        Err(error) if error.code() == Code::LeaseLost => {
            return Ok(CopyResult { rows: catalog.finish_copy(copy.table_id, copy.copy_no).await? });
        }
        state => state?,
    };
    let epoch = state.epoch.ok_or_else(|| Error::new(Code::Internal, "the copy has no epoch"))?;
    // An empty table has been read as of its epoch.
    let stream = position_passed(environment, copy, state.read_end.unwrap_or(epoch)).await?;
    // By the base of the same moment: the stream may have begun anew since, and this copy be over.
    let epoch = Version::epoch(state.base, epoch).0;
    // Leaves that came later are added to the rest: only a TRUNCATE since takes rows away.
    let swept = if state.partial { 0 } else { epoch };
    let is_swept = !state.partial || catalog.get_table(copy.table_id).await?.floor > epoch;
    if is_swept && (stream.lease > 1 || copy.copy_no > 1) {
        // There were attempts or copies before. The position shows that a newer one has taken over;
        // from then on an older one sends for a lease's time at most.
        tokio::time::sleep(LEASE).await;
    }
    fault::here(Point::CopyPassed);
    if is_swept {
        sweep(environment, copy, &stream, swept).await?;
    }
    fault::here(Point::Swept);
    let rows = catalog.finish_copy(copy.table_id, copy.copy_no).await?;
    fault::here(Point::CopyFinished);
    let text = format!("{rows} rows were copied");
    environment.tell(&copy.mirror, &copy.table, EventCode::CopyFinished, &text).await?;
    Ok(CopyResult { rows })
}

async fn position_passed(environment: &Environment, copy: &TableCopy, read_end: Lsn) -> Result<Stream> {
    let table = environment.catalog.get_table(copy.table_id).await?;
    loop {
        // Of a stream that began anew the position says nothing about this copy, which is over then.
        environment.catalog.copy_state(copy.table_id, copy.copy_no).await?;
        let stream = environment.catalog.get_stream(&copy.mirror, table.stream).await?;
        if stream.position >= Some(read_end) {
            return Ok(stream);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn sweep(environment: &Environment, copy: &TableCopy, stream: &Stream, swept: u128) -> Result<()> {
    let catalog = &environment.catalog;
    let mirror = catalog.get_mirror(&copy.mirror).await?;
    let destination = environment.destination(&mirror).await?;
    let plan = environment.plan(copy.table_id).await?;
    end_older_queries(&destination, copy, stream).await?;
    // A TRUNCATE during the copy has raised the floor above the epoch: its delete is repeated here.
    let floor = catalog.get_table(copy.table_id).await?.floor;
    let below = swept.max(floor);
    catalog.raise_swept_floor(copy.table_id, copy.copy_no, below).await?;
    fault::here(Point::SweepFloorStored);
    apart::purge(environment, copy.table_id, destination.clickhouse.purge(&plan, below, &destination.cluster))
        .await
}

/// Ends what copies of the table up to this one, and older attempts of its stream, still insert.
pub(crate) async fn end_older_queries(
    destination: &Destination,
    copy: &TableCopy,
    stream: &Stream,
) -> Result<()> {
    let copies = (copy.copy_no.saturating_sub(OLDER).max(1)..=copy.copy_no)
        .map(|copy_no| copy_partitions::attempt(copy.table_id, copy_no));
    let streams =
        ((stream.lease - i64::from(OLDER)).max(1)..stream.lease).map(|lease| stream_attempt(stream.n, lease));
    for attempt in copies.chain(streams) {
        let prefix = InsertId::attempt_prefix(&copy.mirror, &attempt);
        destination.clickhouse.kill_queries(&prefix, &destination.cluster).await?;
    }
    Ok(())
}

async fn fail(environment: &Environment, failed: &CopyFailure) -> Result<()> {
    let (catalog, copy) = (&environment.catalog, &failed.copy);
    let table = catalog.get_table(copy.table_id).await?;
    // A copy that a newer one replaced, or whose table was stopped, has nothing to say any more.
    if table.copy_no != copy.copy_no || !table.copying {
        return Ok(());
    }
    catalog.set_table_error(copy.table_id, &failed.error).await?;
    let event = NewEvent::of_error(&copy.mirror, Severity::Error, &failed.error).on_table(&copy.table);
    catalog.add_event(&event).await
}
