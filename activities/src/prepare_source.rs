//! Publication, then slot: in this order, because pgoutput looks the publication up as of the
//! change that it decodes. A source that was prepared before may have become another one: see `recovery`.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::state::{Desired, Verdict};
use millrace_catalog::streams::{SlotFacts, Stream};
use millrace_catalog::tables::Table;
use millrace_replication::postgres::epoch::{self, Blocker};
use millrace_replication::postgres::{self, SourceConfig, describe, publication, slot};
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Result, TableName};
use millrace_workflows::contract;
use millrace_workflows::payload::SourceInput;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio_util::sync::CancellationToken;

use crate::alive;
use crate::environment::Environment;
use crate::publish::publish;
use crate::recovery::{Source, recover};

/// Time between two looks at whom a new slot waits for: most transactions are over before the first.
const WAIT_POLL: Duration = Duration::from_secs(2);

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::PrepareSource)]
    pub(crate) async fn prepare_source(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: SourceInput,
    ) -> Result<(), ActivityError> {
        let done = alive::draining(&ctx, |cancel| Box::pin(prepare(&self.0, &input, cancel))).await;
        self.0.outcome(&ctx, &input.mirror, None, done).await
    }
}

/// Makes what the mirror needs, unless it is dropped meanwhile.
async fn prepare(environment: &Environment, input: &SourceInput, cancel: CancellationToken) -> Result<()> {
    let mirror = environment.catalog.get_mirror(&input.mirror).await?;
    let config = environment.source(&mirror).await?;
    let application = environment.catalog.installation().await?.application(&input.mirror);
    let source = Source { environment, mirror: &mirror, config, application };
    let made = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::new(Code::Cancelled, "told to stop")),
        made = make(&source, input) => made,
    };
    // The drop of a mirror waits for this attempt, but not for one that Temporal does not hear of any
    // more: what that one makes after the drop has looked, nobody else would remove.
    if is_dropped(environment, &mirror).await? {
        withdraw(&mirror, &source.config, &source.application).await?;
        return Err(Error::new(Code::MirrorState, format!("mirror {} was dropped", mirror.name())));
    }
    made
}

/// Streams that went on before are looked at one by one, because each look takes a sender that the source
/// may need for the others; one that runs is left alone. New slots are made at once, because each waits until
/// every open transaction is over.
async fn make(source: &Source<'_>, input: &SourceInput) -> Result<()> {
    let (begun, new): (Vec<&Stream>, Vec<&Stream>) =
        source.mirror.streams.iter().partition(|stream| stream.position.is_some());
    for stream in begun {
        if !input.running.contains(&stream.n) {
            recover(source, stream, input.recovery.as_ref()).await?;
        }
        publish_all(source, stream).await?;
    }
    try_join_all(new.into_iter().map(|stream| begin(source, stream))).await.map(drop)
}

/// Whether the mirror is being dropped, or gone. One that was made since under its name is not ours.
async fn is_dropped(environment: &Environment, mirror: &Mirror) -> Result<bool> {
    match environment.catalog.get_mirror(mirror.name()).await {
        Ok(found) => Ok(found.created_at == mirror.created_at && found.desired == Desired::Dropping),
        Err(error) if error.code() == Code::MirrorNotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Removes what was made; what the user made stays the user's.
async fn withdraw(mirror: &Mirror, source: &SourceConfig, application: &str) -> Result<()> {
    let session = postgres::dial(source, application).await?;
    for stream in &mirror.streams {
        if mirror.spec.settings.slot.is_empty() {
            slot::drop(&session, &stream.slot, application).await?;
        }
        if mirror.spec.settings.publication.is_empty() {
            publication::drop(&session, &stream.publication, application).await?;
        }
    }
    Ok(())
}

/// Where a new stream begins.
async fn begin(source: &Source<'_>, stream: &Stream) -> Result<()> {
    let Source { environment, mirror, config, application } = source;
    let system = postgres::identify(config, application).await?;
    fault::here(Point::SourceFound);
    publish_all(source, stream).await?;
    fault::here(Point::PublicationMade);
    let position = if mirror.spec.settings.slot.is_empty() {
        tokio::select! {
            made = slot::ensure(config, application, &stream.slot) => made?.position,
            never = tell_waiting(source, stream) => match never {},
        }
    } else {
        slot::verify(&postgres::dial(config, application).await?, &stream.slot).await?
    };
    fault::here(Point::SlotMade);
    let facts = SlotFacts { system_id: system.id, timeline: system.timeline, position };
    environment.catalog.record_slot(mirror.name(), stream.n, &facts).await?;
    // Whom it waited for is over.
    environment.catalog.set_verdict(mirror.name(), stream.n, Verdict::Idle, None).await?;
    fault::here(Point::SlotRecorded);
    Ok(())
}

/// Says in the stream's verdict whose transactions a new slot waits for, as long as it waits, and once by an
/// event.
async fn tell_waiting(source: &Source<'_>, stream: &Stream) -> Infallible {
    let mut told: Vec<Blocker> = Vec::new();
    loop {
        tokio::time::sleep(WAIT_POLL).await;
        // What cannot be told is no reason to wait less.
        if let Err(error) = tell_blockers(source, stream, &mut told).await {
            tracing::debug!(%error, "who holds back the slot could not be told");
        }
    }
}

async fn tell_blockers(source: &Source<'_>, stream: &Stream, told: &mut Vec<Blocker>) -> Result<()> {
    let Source { environment, mirror, config, application } = source;
    let session = postgres::dial(config, application).await?;
    let blockers = epoch::open_transactions(&session).await?;
    if blockers == *told || blockers.is_empty() {
        return Ok(());
    }
    let whom: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    let message = format!("the replication slot {} waits for {}", stream.slot, whom.join("; "));
    let error = Error::new(Code::SourceBlocked, message).with("slot", &stream.slot);
    let catalog = &environment.catalog;
    catalog.set_verdict(mirror.name(), stream.n, Verdict::Stalled, Some(&error)).await?;
    if told.is_empty() {
        catalog.add_event(&NewEvent::of_error(mirror.name(), Severity::Warning, &error)).await?;
    }
    *told = blockers;
    Ok(())
}

/// Makes sure that the source tells of the stream's tables.
pub(crate) async fn publish_all(source: &Source<'_>, stream: &Stream) -> Result<()> {
    let Source { mirror, config, application, .. } = source;
    let session = postgres::dial(config, application).await?;
    let tables = || mirror.tables.iter().filter(|table| table.stream == stream.n);
    // By the names that they have now: one may have been renamed since it was planned.
    let oids: Vec<u32> = tables().map(|table| table.oid).collect();
    let mut names = describe::names_of(&session, &oids).await?;
    let mut name = |table: &Table| names.remove(&table.oid).unwrap_or_else(|| table.source.clone());
    let tables: Vec<(&Table, TableName)> = tables().map(|table| (table, name(table))).collect();
    publish(&session, application, mirror, stream, &tables).await
}
