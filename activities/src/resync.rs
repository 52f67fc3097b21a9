//! The begin of a resync: tables come into RESYNCING, and are copied again.
//!
//! A table that streams, whose plan is still that of the source's table and whose destination is as it
//! was made, is only marked: the running stream knows it, and the copy that follows overwrites and
//! sweeps. Any other is planned anew, its destination is made to fit, and the stream's attempt is
//! fenced in the transaction that stores the plan. So the attempt that goes on knows the plan before
//! the copy's epoch is taken, and every change above the epoch is delivered to one that does. Changes
//! below the end of the log as it was when the table was planned may be of its former shape; they are
//! left out by the table's floor, and the copy, whose epoch is later, covers them.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_catalog::events::NewEvent;
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::state::TableState;
use millrace_catalog::tables::{NewPlan, Table};
use millrace_replication::clickhouse::TableState as Found;
use millrace_replication::clickhouse::ddl::Engine;
use millrace_replication::postgres::describe::{self, TableShape};
use millrace_replication::postgres::{Session, epoch, plan, publication};
use millrace_replication::table::TablePlan;
use millrace_replication::version::Version;
use millrace_terms::{Code, Error, Lsn, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::ResyncInput;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::{Destination, Environment};
use crate::{alive, check};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::BeginResync)]
    pub(crate) async fn begin_resync(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ResyncInput,
    ) -> Result<(), ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(begin(&self.0, &input))).await;
        self.0.outcome(&ctx, &input.mirror, None, done).await
    }
}

/// A table as it is to be replicated from now on.
struct Planned<'a> {
    table: &'a Table,
    shape: TableShape,
    plan: TablePlan,
    /// Whether this is the plan that the table has.
    is_kept: bool,
}

async fn begin(environment: &Environment, input: &ResyncInput) -> Result<()> {
    let mirror = environment.catalog.get_mirror(&input.mirror).await?;
    let session = environment.dial(&mirror).await?;
    let destination = environment.destination(&mirror).await?;
    // All are planned before the first is touched: what cannot be resynced changes nothing.
    let mut planned = Vec::new();
    for table in mirror.tables.iter().filter(|table| input.table_id.is_none_or(|id| id == table.id)) {
        planned.push(planned_anew(environment, &mirror, &session, table).await?);
    }
    // After the last was looked at: changes of its former shape are of commits below.
    let log_end = epoch::log_end(&session).await?;
    for table in &planned {
        resync(environment, &mirror, &session, &destination, table, log_end).await?;
    }
    Ok(())
}

async fn planned_anew<'a>(
    environment: &Environment,
    mirror: &Mirror,
    session: &Session,
    table: &'a Table,
) -> Result<Planned<'a>> {
    let source = table.source.to_string();
    let shape = describe::describe(session, std::slice::from_ref(&table.source)).await?.pop();
    let shape = shape.ok_or_else(|| Error::new(Code::SourceTableMissing, format!("no table {source}")))?;
    let spec = mirror.spec.tables.iter().find(|spec| spec.source == source);
    let spec = spec.ok_or_else(|| {
        Error::new(Code::Internal, format!("the mirror's specification does not hold {source}"))
    })?;
    let plan = plan::plan(&shape, &check::options(&mirror.spec, spec))?;
    let is_kept = environment.plan(table.id).await? == plan;
    Ok(Planned { table, shape, plan, is_kept })
}

async fn resync(
    environment: &Environment,
    mirror: &Mirror,
    session: &Session,
    destination: &Destination,
    planned: &Planned<'_>,
    log_end: Lsn,
) -> Result<()> {
    let Planned { table, shape, plan, is_kept } = planned;
    let catalog = &environment.catalog;
    publish(environment, mirror, session, table).await?;
    let found = destination.clickhouse.table_state(plan, Engine::Replacing).await?;
    let mut text = format!("{} is copied again", table.source);
    let is_known = table.state.is_streamed() && table.state != TableState::Pending;
    if *is_kept && is_known && found == Found::Ready {
        catalog.set_table_state(table.id, TableState::Resyncing).await?;
        return tell(environment, mirror, table, &text).await;
    }
    if let Found::Differs(why) = &found {
        destination.clickhouse.drop_table(&plan.destination, &destination.cluster).await?;
        text = format!("{text}; the destination table is dropped and created again: {}", why.message());
    }
    if found != Found::Ready {
        destination.clickhouse.create_database(&destination.cluster).await?;
        destination.clickhouse.create_table(plan, Engine::Replacing, &destination.cluster).await?;
    }
    let stream = catalog.get_stream(mirror.name(), table.stream).await?;
    let value = serde_json::to_value(plan)
        .map_err(|error| Error::new(Code::Internal, format!("the plan of {}: {error}", table.source)))?;
    let new = NewPlan {
        oid: plan.oid,
        plan: value,
        floor: Version::epoch(stream.base, log_end).0,
        rows_estimated: shape.rows_estimated,
        bytes_total: shape.bytes,
    };
    catalog.replan_table(table.id, &new).await?;
    tell(environment, mirror, table, &text).await
}

/// Makes sure that the source tells of the table before the copy's epoch is taken: one that was made
/// anew is in no publication.
async fn publish(environment: &Environment, mirror: &Mirror, session: &Session, table: &Table) -> Result<()> {
    let Some(stream) = mirror.streams.iter().find(|stream| stream.n == table.stream) else {
        return Err(Error::new(Code::Internal, format!("{} belongs to no stream", table.source)));
    };
    let tables = std::slice::from_ref(&table.source);
    if mirror.spec.settings.publication.is_empty() {
        let mark = environment.catalog.installation().await?.application(mirror.name());
        publication::ensure(session, &stream.publication, &mark, tables).await.map(drop)
    } else {
        publication::verify(session, &stream.publication, tables).await
    }
}

async fn tell(environment: &Environment, mirror: &Mirror, table: &Table, text: &str) -> Result<()> {
    let event = NewEvent::info(mirror.name(), text).on_table(&table.source.to_string());
    environment.catalog.add_event(&event).await
}
