//! Publication, then slot: in this order, because pgoutput looks the publication up as of the
//! change that it decodes.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::state::Desired;
use millrace_catalog::streams::{SlotFacts, Stream};
use millrace_replication::postgres::{self, SourceConfig, System, publication, slot};
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Result, TableName};
use millrace_workflows::contract;
use millrace_workflows::payload::MirrorRef;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tokio_util::sync::CancellationToken;

use crate::alive;
use crate::environment::Environment;

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::PrepareSource)]
    pub(crate) async fn prepare_source(
        self: Arc<Self>,
        ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<(), ActivityError> {
        let done = alive::draining(&ctx, |cancel| Box::pin(prepare(&self.0, &mirror.mirror, cancel))).await;
        self.0.outcome(&ctx, &mirror.mirror, None, done).await
    }
}

/// Makes what the mirror needs, unless it is dropped meanwhile.
async fn prepare(environment: &Environment, name: &str, cancel: CancellationToken) -> Result<()> {
    let mirror = environment.catalog.get_mirror(name).await?;
    let source = environment.source(&mirror).await?;
    let application = environment.catalog.installation().await?.application(name);
    let made = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::new(Code::Cancelled, "told to stop")),
        made = make(environment, &mirror, &source, &application) => made,
    };
    // The drop of a mirror waits for this attempt, but not for one that Temporal does not hear of any
    // more: what that one makes after the drop has looked, nobody else would remove.
    if is_dropped(environment, &mirror).await? {
        withdraw(&mirror, &source, &application).await?;
        return Err(Error::new(Code::MirrorState, format!("mirror {name} was dropped")));
    }
    made
}

async fn make(
    environment: &Environment,
    mirror: &Mirror,
    source: &SourceConfig,
    application: &str,
) -> Result<()> {
    let system = postgres::identify(source, application).await?;
    for stream in &mirror.streams {
        same_system(stream, &system)?;
        fault::here(Point::SourceFound);
        publish(source, application, mirror, stream).await?;
        fault::here(Point::PublicationMade);
        let position = begin(source, application, mirror, stream).await?;
        fault::here(Point::SlotMade);
        let facts = SlotFacts { system_id: system.id.clone(), timeline: system.timeline, position };
        environment.catalog.record_slot(mirror.name(), stream.n, &facts).await?;
        fault::here(Point::SlotRecorded);
    }
    Ok(())
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

/// Refuses a source that is another cluster, or another history of it, than the stream was made for.
///
/// # Errors
/// SOURCE_TIMELINE.
pub(crate) fn same_system(stream: &Stream, system: &System) -> Result<()> {
    let (Some(id), Some(timeline)) = (&stream.system_id, stream.timeline) else { return Ok(()) };
    if *id == system.id && timeline == system.timeline {
        return Ok(());
    }
    let text = format!(
        "the source is system {} on timeline {}, the mirror was made for system {id} on timeline {timeline}",
        system.id, system.timeline
    );
    Err(Error::new(Code::SourceTimeline, text).with("mirror", &stream.mirror))
}

async fn publish(source: &SourceConfig, application: &str, mirror: &Mirror, stream: &Stream) -> Result<()> {
    let session = postgres::dial(source, application).await?;
    let tables: Vec<TableName> = mirror
        .tables
        .iter()
        .filter(|table| table.stream == stream.n)
        .map(|table| table.source.clone())
        .collect();
    if mirror.spec.settings.publication.is_empty() {
        // The mark in the publication's comment is what our sessions are called.
        publication::ensure(&session, &stream.publication, application, &tables).await.map(drop)
    } else {
        publication::verify(&session, &stream.publication, &tables).await
    }
}

/// Where the stream begins. A slot that was there once is never made anew: changes would be missing.
async fn begin(
    source: &SourceConfig,
    application: &str,
    mirror: &Mirror,
    stream: &Stream,
) -> Result<millrace_terms::Lsn> {
    if stream.position.is_none() && mirror.spec.settings.slot.is_empty() {
        return Ok(slot::ensure(source, application, &stream.slot).await?.position);
    }
    let session = postgres::dial(source, application).await?;
    slot::verify(&session, &stream.slot).await
}
