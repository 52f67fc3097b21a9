//! The position that separates a table's copy from its stream.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_catalog::mirrors::Mirror;
use millrace_replication::postgres::epoch::{self, Blocker};
use millrace_replication::postgres::{Session, describe, tree};
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Lsn, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::TableCopy;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::publish::publish;
use crate::{alive, leaves};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::TakeEpoch)]
    pub(crate) async fn take_epoch(
        self: Arc<Self>,
        ctx: ActivityContext,
        copy: TableCopy,
    ) -> Result<Lsn, ActivityError> {
        let done = alive::draining(&ctx, |cancel| Box::pin(take(&self.0, &copy, cancel))).await;
        self.0.outcome(&ctx, &copy.mirror, Some(&copy.table), done).await
    }
}

async fn take(environment: &Environment, copy: &TableCopy, cancel: CancellationToken) -> Result<Lsn> {
    let catalog = &environment.catalog;
    // A copy that has an epoch keeps it: rows may have been written with it.
    if let Some(epoch) = catalog.copy_state(copy.table_id, copy.copy_no).await?.epoch {
        return Ok(epoch);
    }
    let mirror = catalog.get_mirror(&copy.mirror).await?;
    let stream = catalog.get_table(copy.table_id).await?.stream;
    let session = environment.dial_log(&mirror, stream).await?;
    // Before the epoch: what becomes a part of the table later is copied by an epoch of its own. Its keys
    // may have been deleted from the table above this one.
    let table = environment.plan(copy.table_id).await?;
    if table.merges_heirs {
        // Those that came since.
        publish_heirs(environment, &mirror, copy, &session).await?;
    }
    let leaves = tree::of(&session, &[table.oid], table.merges_heirs).await?.remove(&table.oid);
    let leaves: Vec<_> = leaves.iter().flat_map(|tree| &tree.leaves).map(leaves::stored).collect();
    catalog.cover_leaves(copy.table_id, copy.copy_no, &leaves).await?;
    let (blocked, blockers) = watch::channel(None);
    let taken = epoch::take(&session, &cancel, |blockers| {
        blocked.send_replace(words(blockers));
    });
    let epoch = tokio::select! {
        epoch = taken => epoch?,
        error = tell(environment, copy, blockers) => return Err(error),
    };
    fault::here(Point::EpochTaken);
    let epoch = catalog.record_epoch(copy.table_id, copy.copy_no, epoch.0).await?;
    fault::here(Point::EpochRecorded);
    Ok(epoch)
}

async fn publish_heirs(
    environment: &Environment,
    mirror: &Mirror,
    copy: &TableCopy,
    session: &Session,
) -> Result<()> {
    let table = environment.catalog.get_table(copy.table_id).await?;
    let Some(stream) = mirror.streams.iter().find(|stream| stream.n == table.stream) else {
        return Err(Error::new(Code::Internal, format!("{} belongs to no stream", table.source)));
    };
    let name = describe::name_of(session, table.oid).await?.unwrap_or_else(|| table.source.clone());
    let mark = environment.catalog.installation().await?.application(mirror.name());
    publish(session, &mark, mirror, stream, &[(&table, name)]).await
}

/// Writes down who holds the copy back, whenever that changes; ends only by an error.
async fn tell(
    environment: &Environment,
    copy: &TableCopy,
    mut blockers: watch::Receiver<Option<String>>,
) -> millrace_terms::Error {
    loop {
        if blockers.changed().await.is_err() {
            // The epoch is taken, and this future about to be dropped.
            std::future::pending::<()>().await;
        }
        let whom = blockers.borrow_and_update().clone();
        let written = environment.catalog.set_blocked_by(copy.table_id, copy.copy_no, whom.as_deref()).await;
        match written {
            Err(error) if !error.is_retryable() => return error,
            // What is shown is late then; the wait itself goes on.
            Err(error) => tracing::debug!(error = %error, "who blocks the copy could not be written down"),
            Ok(()) => {}
        }
    }
}

fn words(blockers: &[Blocker]) -> Option<String> {
    let words: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
