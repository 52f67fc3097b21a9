//! Regular work for all mirrors: slots of quiet databases are moved forward, lag is measured, what
//! is past its time is deleted, physical deletes are repeated, workflows that were ended by force are found,
//! and Temporal's UI is told how mirrors are.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

mod show;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use millrace_catalog::purges::Purge;
use millrace_catalog::slots::SlotSeen;
use millrace_catalog::streams::Stream;
use millrace_replication::clickhouse::INSERT_SECONDS_MAX;
use millrace_replication::postgres::{from_sql, slot};
use millrace_terms::Result;
use millrace_workflows::payload::HousekeepingReport;
use millrace_workflows::{MirrorWorkflow, contract, ids};
use temporalio_client::{Client, WorkflowHandle, WorkflowSignalOptions};
use temporalio_common::HasWorkflowDefinition;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::Environment;
use crate::stream::LEASE;
use crate::{alive, apart, children, failure, slots};

/// Sources that are looked at together: one that does not answer must not hold up the others.
const SOURCES_AT_ONCE: usize = 16;

/// How long one source or destination may take.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);

/// Physical deletes repeated at once.
const PURGES_AT_ONCE: usize = 4;

/// How long after a physical delete no insert is alive any more that was begun before it: the longest
/// life of an insert, the time for which a replaced attempt may still begin one, and a minute for the
/// server to notice that its time is over.
const PURGE_AGE: Duration = Duration::from_secs(INSERT_SECONDS_MAX + LEASE.as_secs() + 60);

/// A message in the log that nobody reads: it lets the slot of a database go forward in which
/// nothing is written, while others of the server fill the log.
const BEAT: &str = "select pg_catalog.pg_logical_emit_message(true, 'millrace', '')";

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::Housekeep)]
    pub(crate) async fn housekeep(
        self: Arc<Self>,
        ctx: ActivityContext,
    ) -> Result<HousekeepingReport, ActivityError> {
        self.remind(&ctx).await;
        let client = ctx.client();
        let round = async {
            if let Err(error) = children::report_ended(&self.0, &ctx).await {
                tracing::debug!(%error, "workflows that were ended by force could not be looked for");
            }
            let report = housekeep(&self.0).await?;
            // Behind the looks at the sources: what they saw is told, too.
            if let Err(error) = show::figures(&self.0, &client).await {
                tracing::debug!(%error, "Temporal could not be told how mirrors are");
            }
            Ok(report)
        };
        let done = alive::interruptible(&ctx, Box::pin(round)).await;
        done.map_err(|error| failure::ended(&ctx, error))
    }
}

impl Step {
    /// Has mirrors look again at tables that could not join or leave.
    async fn remind(&self, ctx: &ActivityContext) {
        let edited = match self.0.catalog.list_edited_mirrors().await {
            Ok(edited) => edited,
            Err(error) => return tracing::debug!(error = %error, "edited mirrors could not be listed"),
        };
        for mirror in edited {
            let handle: WorkflowHandle<Client, <MirrorWorkflow as HasWorkflowDefinition>::Run> =
                ctx.client().get_workflow_handle(ids::mirror(&mirror));
            let options = WorkflowSignalOptions::default();
            if let Err(error) = handle.signal(MirrorWorkflow::catalog_changed, (), options).await {
                // The next round tells it again.
                tracing::debug!(error = %error, %mirror, "the mirror could not be told of its edits");
            }
        }
    }
}

async fn housekeep(environment: &Environment) -> Result<HousekeepingReport> {
    let mut streams = environment.catalog.list_streams().await?;
    streams.retain(|stream| stream.position.is_some());
    let mut report = HousekeepingReport { streams: streams.len() as u32, ..HousekeepingReport::default() };
    // First: sources that cannot be reached must not keep sealed drafts alive.
    report.expired = environment.catalog.delete_expired().await?;
    let looks = streams.into_iter().map(|stream| look_in_time(environment, stream));
    let mut looks = stream::iter(looks).buffer_unordered(SOURCES_AT_ONCE);
    while let Some(reached) = looks.next().await {
        report.unreachable += u32::from(!reached);
    }
    drop(looks);
    purge_again(environment).await?;
    Ok(report)
}

/// Repeats physical deletes that a late insert may have undone. Those that fail are due at the next
/// round.
async fn purge_again(environment: &Environment) -> Result<()> {
    let due = environment.catalog.due_purges(PURGE_AGE).await?;
    let purges = due.into_iter().map(|purge| async move {
        let done = tokio::time::timeout(PEER_TIMEOUT, purge_table(environment, &purge)).await;
        if let Ok(Err(error)) = done {
            tracing::debug!(mirror = %purge.mirror, error = %error, "a physical delete was not repeated");
        }
    });
    stream::iter(purges).buffer_unordered(PURGES_AT_ONCE).collect::<()>().await;
    Ok(())
}

async fn purge_table(environment: &Environment, purge: &Purge) -> Result<()> {
    let mirror = environment.catalog.get_mirror(&purge.mirror).await?;
    let plan = environment.plan(purge.table_id).await?;
    let destination = environment.destination(&mirror).await?;
    let delete = destination.clickhouse.purge_later(&plan, purge.below, &destination.cluster);
    apart::purge(environment, purge.table_id, delete).await?;
    environment.catalog.finish_purge(purge).await
}

/// Whether the source could be reached. The stream itself says in its verdict if it could not; a
/// paused one needs nothing of its source.
async fn look_in_time(environment: &Environment, stream: Stream) -> bool {
    match tokio::time::timeout(PEER_TIMEOUT, look(environment, &stream)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(mirror = %stream.mirror, error = %error, "the source could not be measured");
            false
        }
        Err(_) => false,
    }
}

async fn look(environment: &Environment, stream: &Stream) -> Result<()> {
    let mirror = environment.catalog.get_mirror(&stream.mirror).await?;
    let session = environment.dial(&mirror).await?;
    session.execute(BEAT, &[]).await.map_err(|error| from_sql("writing a message into the log", &error))?;
    environment.catalog.release_holds(&stream.mirror, stream.n).await?;
    let seen = slot::status(&session, &stream.slot)
        .await?
        .map(|status| SlotSeen::new(slots::look(status), Timestamp::now(), stream.slot_seen.as_ref()));
    environment.catalog.record_slot_seen(&stream.mirror, stream.n, seen.as_ref()).await
}
