//! Removes what a mirror made. Each step may be repeated, and finds what is gone already.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::state::Desired;
use millrace_catalog::streams::Stream;
use millrace_catalog::tables::Table;
use millrace_replication::clickhouse::InsertId;
use millrace_replication::postgres::{self, publication, slot};
use millrace_terms::{Code, Error, EventCode, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{DropReport, DropScope, Leftover, MirrorRef, TableCopy, WorkflowIds};
use temporalio_client::errors::WorkflowGetResultError;
use temporalio_client::{Client, UntypedWorkflow, WorkflowGetResultOptions, WorkflowHandle};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::Environment;
use crate::{alive, failure};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::BeginDrop)]
    pub(crate) async fn begin_drop(
        self: Arc<Self>,
        _ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<DropScope, ActivityError> {
        begin(&self.0, &mirror.mirror).await.map_err(failure::of)
    }

    #[activity(definition = contract::DropSource)]
    pub(crate) async fn drop_source(
        self: Arc<Self>,
        ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<Vec<Leftover>, ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(source(&self.0, &mirror.mirror))).await;
        self.0.outcome(&ctx, &mirror.mirror, None, done).await
    }

    #[activity(definition = contract::DropDestination)]
    pub(crate) async fn drop_destination(
        self: Arc<Self>,
        ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<Vec<Leftover>, ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(destination(&self.0, &mirror.mirror))).await;
        self.0.outcome(&ctx, &mirror.mirror, None, done).await
    }

    #[activity(definition = contract::AwaitClosed)]
    pub(crate) async fn await_closed(
        self: Arc<Self>,
        ctx: ActivityContext,
        workflows: WorkflowIds,
    ) -> Result<(), ActivityError> {
        let client = ctx.client();
        let closed = async {
            for id in &workflows.ids {
                closed(client.get_workflow_handle(id)).await?;
            }
            Ok(())
        };
        alive::interruptible(&ctx, closed).await.map_err(|error| failure::ended(&ctx, error))
    }

    #[activity(definition = contract::ForgetMirror)]
    pub(crate) async fn forget_mirror(
        self: Arc<Self>,
        _ctx: ActivityContext,
        report: DropReport,
    ) -> Result<(), ActivityError> {
        forget(&self.0, &report).await.map_err(failure::of)
    }
}

/// Waits for the end of a workflow, however it ends. One that never was has ended.
async fn closed(workflow: WorkflowHandle<Client, UntypedWorkflow>) -> Result<()> {
    match workflow.get_result(WorkflowGetResultOptions::default()).await {
        Err(WorkflowGetResultError::Rpc(status)) => {
            Err(Error::new(Code::TemporalUnreachable, status.message()))
        }
        _ => Ok(()),
    }
}

/// Fences: from here on no attempt can write a position, and those that run find out and stop.
async fn begin(environment: &Environment, name: &str) -> Result<DropScope> {
    let catalog = &environment.catalog;
    let mirror = match catalog.get_mirror(name).await {
        Err(error) if error.code() == Code::MirrorNotFound => return Ok(DropScope::default()),
        mirror => mirror?,
    };
    catalog.set_desired(name, Desired::Dropping, "").await?;
    for stream in &mirror.streams {
        catalog.take_lease(name, stream.n, Duration::ZERO).await?;
    }
    let copying = mirror.tables.iter().filter(|table| table.copying);
    let source_objects = mirror.streams.iter().flat_map(|stream| made_on_source(&mirror, stream));
    let tables = mirror.tables.iter().filter(|table| is_ours(&mirror, table));
    Ok(DropScope {
        streams: mirror.streams.iter().map(|stream| stream.n).collect(),
        source_objects: source_objects.collect(),
        destination_objects: tables.map(|table| format!("table {}", table.destination)).collect(),
        copies: copying
            .map(|table| TableCopy {
                mirror: name.to_owned(),
                table_id: table.id,
                table: table.source.to_string(),
                copy_no: table.copy_no,
            })
            .collect(),
    })
}

/// Before a mirror was prepared, a table of the name is its own only if the mirror made it.
fn is_ours(mirror: &Mirror, table: &Table) -> bool {
    mirror.prepared_at.is_some() || table.made
}

/// What was made for a stream; what the user made stays the user's.
fn made_on_source(mirror: &Mirror, stream: &Stream) -> impl Iterator<Item = String> {
    let settings = &mirror.spec.settings;
    let slot = settings.slot.is_empty().then(|| slot_object(stream));
    let publication = settings.publication.is_empty().then(|| publication_object(stream));
    slot.into_iter().chain(publication)
}

fn slot_object(stream: &Stream) -> String {
    format!("replication slot {}", stream.slot)
}

fn publication_object(stream: &Stream) -> String {
    format!("publication {}", stream.publication)
}

async fn source(environment: &Environment, name: &str) -> Result<Vec<Leftover>> {
    let mirror = match environment.catalog.get_mirror(name).await {
        Err(error) if error.code() == Code::MirrorNotFound => return Ok(Vec::new()),
        mirror => mirror?,
    };
    let application = environment.catalog.installation().await?.application(name);
    let session = environment.dial(&mirror).await?;
    // An attempt that was cut off in the middle may still be making what is dropped here.
    postgres::end_sessions(&session, &application).await?;
    let mut leftovers = Vec::new();
    let settings = &mirror.spec.settings;
    for stream in &mirror.streams {
        // Of ours, one that fails keeps none of the others.
        if settings.slot.is_empty() {
            let dropped = slot::drop(&session, &stream.slot, &application).await;
            keep(&mut leftovers, slot_object(stream), dropped)?;
        } else {
            slot::release(&session, &stream.slot, &application).await?;
        }
        if settings.publication.is_empty() {
            let dropped = publication::drop(&session, &stream.publication, &application).await;
            keep(&mut leftovers, publication_object(stream), dropped)?;
        }
    }
    Ok(leftovers)
}

async fn destination(environment: &Environment, name: &str) -> Result<Vec<Leftover>> {
    let mirror = match environment.catalog.get_mirror(name).await {
        Err(error) if error.code() == Code::MirrorNotFound => return Ok(Vec::new()),
        mirror => mirror?,
    };
    let destination = environment.destination(&mirror).await?;
    let clickhouse = &destination.clickhouse;
    // An insert that is under way would fail anyway; ended, it does not hold up the drop.
    clickhouse.kill_queries(&InsertId::mirror_prefix(name), &destination.cluster).await?;
    let mut leftovers = Vec::new();
    for table in &mirror.tables {
        if is_ours(&mirror, table) {
            let sharers = environment.catalog.list_sharers(table.id).await?;
            let dropped = if sharers.iter().all(|other| other.mirror == name) {
                clickhouse.drop_table(&table.destination, &destination.cluster).await
            } else {
                // Another mirror writes there: only this one's rows go.
                let plan = environment.plan(table.id).await?;
                clickhouse.purge(&plan, u128::MAX, &destination.cluster).await
            };
            let object = format!("table {} of database {}", table.destination, clickhouse.database());
            keep(&mut leftovers, object, dropped)?;
        }
    }
    Ok(leftovers)
}

/// Notes what could not be removed. What a retry may mend is retried first.
fn keep(leftovers: &mut Vec<Leftover>, object: String, dropped: Result<()>) -> Result<()> {
    match dropped {
        Ok(()) => Ok(()),
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => {
            leftovers.push(Leftover { object, error });
            Ok(())
        }
    }
}

async fn forget(environment: &Environment, report: &DropReport) -> Result<()> {
    let left = report.leftovers.iter().map(|Leftover { object, error }| {
        let error = error.clone().context(format_args!("{object} stays behind"));
        let error = Error::new(error.code(), error.message())
            .with_remedy(format!("Remove the {object} by hand, when nobody uses it."));
        NewEvent::of_error(&report.mirror, Severity::Warning, &error)
    });
    let dropped = NewEvent::info(&report.mirror, EventCode::MirrorDropped, "the mirror was dropped");
    let events: Vec<NewEvent> = left.chain([dropped]).collect();
    environment.catalog.delete_mirror(&report.mirror, &events).await.map(drop)
}
