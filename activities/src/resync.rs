//! The begin of a resync: tables come into RESYNCING, and are copied again.
//!
//! A table that streams, whose plan is still that of the source's table and whose destination is as it
//! was made, is only marked: the running stream knows it, and the copy that follows overwrites and
//! sweeps. Any other is planned anew, its destination is made to fit, and the stream's attempt is
//! fenced in the transaction that stores the plan. So the attempt that goes on knows the plan before
//! the copy's epoch is taken, and every change above the epoch is delivered to one that does. Changes
//! below the end of the log as it was when the table was planned may be of its former shape; they are
//! left out by the table's floor, and the copy, whose epoch is later, covers them.
//!
//! Dropping a destination and storing the new plan are not one step. Before the first it is noted in the
//! catalog that the table must be copied again, and the second takes the note away: whoever dies in
//! between, the mirror's workflow finds the note and begins the resync again, for as long as it takes.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;
use std::time::Duration;

use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::state::TableState;
use millrace_catalog::streams::Stream;
use millrace_catalog::tables::{NewPlan, Table};
use millrace_replication::clickhouse::TableState as Found;
use millrace_replication::postgres::describe::{self, TableShape};
use millrace_replication::postgres::{Session, epoch, plan};
use millrace_replication::table::TablePlan;
use millrace_replication::version::Version;
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, EventCode, Lsn, Result, TableName};
use millrace_workflows::contract;
use millrace_workflows::payload::{Resync, ResyncInput};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::{Destination, Environment, plan_value};
use crate::publish::publish;
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
pub(crate) struct Planned<'a> {
    table: &'a Table,
    shape: TableShape,
    /// Its plan.
    pub(crate) plan: TablePlan,
    /// Whether this is the plan that the table has.
    is_kept: bool,
}

async fn begin(environment: &Environment, input: &ResyncInput) -> Result<()> {
    let mirror = environment.catalog.get_mirror(&input.mirror).await?;
    let session = environment.dial_log(&mirror, of_one_log(&mirror)?).await?;
    let destination = environment.destination(&mirror).await?;
    let database = &environment.source(&mirror).await?.database;
    let work = Work { environment, mirror: &mirror, session: &session, destination: &destination, database };
    match input.which {
        // A paused table stays so until it is named.
        Resync::All => {
            work.asked(mirror.tables.iter().filter(|table| table.state != TableState::Paused)).await
        }
        Resync::Table(id) => work.asked(mirror.tables.iter().filter(|table| table.id == id)).await,
        Resync::Needed => {
            let needed = environment.catalog.wanted_resyncs(mirror.name()).await?;
            work.needed(mirror.tables.iter().filter(|table| needed.contains(&table.id))).await
        }
    }
}

/// A stream whose log is that of all: one end of the log and the bases of the tables' streams make the
/// floors, so they must belong together.
///
/// # Errors
/// SOURCE_IN_RECOVERY while some streams have followed the source to another log, and others are about to.
fn of_one_log(mirror: &Mirror) -> Result<u32> {
    let log = |stream: &Stream| (stream.system_id.clone(), stream.timeline);
    let Some((first, rest)) = mirror.streams.split_first() else {
        return Err(Error::new(Code::Internal, "the mirror has no stream"));
    };
    match rest.iter().find(|stream| log(stream) != log(first)) {
        None => Ok(first.n),
        Some(other) => {
            let message = format!("streams {} and {} follow different logs", first.n, other.n);
            Err(Error::new(Code::SourceInRecovery, message).with("mirror", mirror.name()))
        }
    }
}

/// What the resyncs of a mirror's tables have in common.
pub(crate) struct Work<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) mirror: &'a Mirror,
    pub(crate) session: &'a Session,
    pub(crate) destination: &'a Destination,
    /// Name of the source's database.
    pub(crate) database: &'a str,
}

impl Work<'_> {
    /// A person asks: all tables are planned before the first is touched, so that what cannot be resynced
    /// changes nothing.
    async fn asked<'t>(&self, tables: impl Iterator<Item = &'t Table>) -> Result<()> {
        let mut planned = Vec::new();
        // One that is to join is copied anyway.
        for table in tables.filter(|table| table.edit.is_none()) {
            let table = self.planned_anew(table).await?;
            if table.plan.own.source.is_some() {
                let found = self.destination.clickhouse.table_state(&table.plan).await?;
                self.refuse_rebuild(&table, &found).await?;
            }
            planned.push(table);
        }
        self.publish(
            &planned.iter().map(|table| (table.table, table.plan.source.clone())).collect::<Vec<_>>(),
        )
        .await?;
        // After the last was looked at: changes of its former shape are of commits below.
        let log_end = epoch::log_end(self.session).await?;
        fault::here(Point::ReplanBegun);
        for table in &planned {
            let knows = table.is_kept && table.table.state.is_streamed();
            self.resync(table, log_end, knows && table.table.state != TableState::Pending).await?;
            // Who asks for a copy wants one, also where an earlier one was cancelled.
            self.environment.catalog.continue_copy(table.table).await?;
        }
        Ok(())
    }

    /// Nobody asks: each table by itself, and what does not help it is its own error. The stream that
    /// runs may have left it out, so it is replaced.
    async fn needed<'t>(&self, tables: impl Iterator<Item = &'t Table>) -> Result<()> {
        for table in tables {
            let begun = async {
                let planned = self.planned_anew(table).await?;
                self.publish(&[(table, planned.plan.source.clone())]).await?;
                let log_end = epoch::log_end(self.session).await?;
                self.resync(&planned, log_end, false).await
            };
            match begun.await {
                Err(error) if !error.is_retryable() => self.fail(table, &error).await?,
                begun => begun?,
            }
        }
        Ok(())
    }

    /// Puts a table into ERROR.
    pub(crate) async fn fail(&self, table: &Table, error: &Error) -> Result<()> {
        let catalog = &self.environment.catalog;
        catalog.set_table_error(table.id, error).await?;
        let event = NewEvent::of_error(self.mirror.name(), Severity::Error, error).on_table(&table.source);
        catalog.add_event(&event).await
    }

    /// Plans a table as the source has it now.
    pub(crate) async fn planned_anew<'t>(&self, table: &'t Table) -> Result<Planned<'t>> {
        let Work { environment, mirror, session, .. } = self;
        let source = table.source.to_string();
        // Its identity first: the name may be another's by now. A table that was made anew has only that.
        let name = describe::name_of(session, table.oid).await?.unwrap_or_else(|| table.source.clone());
        let shape = describe::describe(session, std::slice::from_ref(&name)).await?.pop();
        let shape = shape.ok_or_else(|| Error::new(Code::SourceTableMissing, format!("no table {name}")))?;
        if name != table.source {
            environment.catalog.rename_table(table.id, &name).await?;
        }
        let spec = mirror.spec.tables.iter().find(|spec| spec.source == source);
        let spec = spec.ok_or_else(|| {
            Error::new(Code::Internal, format!("the mirror's specification does not hold {source}"))
        })?;
        let shape = if spec.with_children { shape.with_heirs() } else { shape };
        let before = environment.plan(table.id).await?;
        let mut options = check::options(&mirror.spec, spec, self.database);
        if before.own.source.is_some() {
            // Rows bear it: it stays when the table is renamed.
            options.own.source.clone_from(&before.own.source);
        }
        let is_same_table = before.oid == shape.oid;
        let options = if is_same_table { options.followed(&shape, &before) } else { options };
        let mut plan = plan::plan(&shape, &options)?;
        if is_same_table {
            plan.succeed(&before);
        }
        let is_kept = before.is_like(&plan);
        Ok(Planned { table, shape, plan, is_kept })
    }

    /// `is_followed`: the stream that runs follows the table by this very plan.
    async fn resync(&self, planned: &Planned<'_>, log_end: Lsn, is_followed: bool) -> Result<()> {
        let Work { environment, destination, .. } = self;
        let Planned { table, plan, .. } = planned;
        let catalog = &environment.catalog;
        let found = destination.clickhouse.table_state(plan).await?;
        let mut text = format!("{} is copied again", table.source);
        if is_followed && found == Found::Ready {
            catalog.set_table_state(table.id, TableState::Resyncing).await?;
            fault::here(Point::ResyncMarked);
            return self
                .environment
                .tell(self.mirror.name(), &table.source, EventCode::ResyncBegun, &text)
                .await;
        }
        self.refuse_rebuild(planned, &found).await?;
        if found != Found::Ready {
            self.note_rebuild(table, &found).await?;
        }
        if found == Found::Missing {
            self.copy_sharers(table).await?;
        }
        if let Found::Differs(why) = &found {
            // The attempt that runs would find the table gone, and put it into ERROR for that.
            catalog.take_lease(self.mirror.name(), table.stream, Duration::ZERO).await?;
            destination.clickhouse.drop_table(&plan.destination, &destination.cluster).await?;
            fault::here(Point::DestinationDropped);
            text = format!("{text}; the destination table is dropped and created again: {}", why.message());
        }
        if found != Found::Ready {
            destination.clickhouse.create_database(&destination.cluster).await?;
            destination.clickhouse.create_table(plan, &destination.cluster).await?;
            fault::here(Point::DestinationRemade);
        }
        catalog.replan_table(table.id, &self.stored(planned, log_end).await?).await?;
        fault::here(Point::Replanned);
        self.environment.tell(self.mirror.name(), &table.source, EventCode::ResyncBegun, &text).await
    }

    /// Refuses to make a destination table anew that others write into.
    async fn refuse_rebuild(&self, planned: &Planned<'_>, found: &Found) -> Result<()> {
        let Found::Differs(why) = found else { return Ok(()) };
        let sharers = self.environment.catalog.list_sharers(planned.table.id).await?;
        let Some(other) = sharers.first() else { return Ok(()) };
        let (table, destination) = (&planned.table.source, &planned.plan.destination);
        let message = format!(
            "{table} does not fit its destination any more, which {} of mirror {} shares: {}",
            other.source,
            other.mirror,
            why.message()
        );
        Err(Error::new(Code::DestinationTableChanged, message)
            .with("table", table.to_string())
            .with("destination", destination)
            .with_remedy(format!(
                "Make {destination} fit by ALTER TABLE and resync {table}; or remove every table that goes there, the last with its destination table, and add them again."
            )))
    }

    /// Notes that the table must be copied again, before its destination is made anew: who asks for a
    /// resync asks for two attempts at it, and if both die behind this, the table has lost its rows and
    /// nobody else knows.
    async fn note_rebuild(&self, table: &Table, found: &Found) -> Result<()> {
        let why = match found {
            Found::Differs(why) => why.message().to_owned(),
            Found::Ready | Found::Missing => format!("the destination {} is gone", table.destination),
        };
        let reason = Error::new(Code::DestinationTableChanged, format!("{why}; it is made anew"))
            .with_remedy("Nothing: the table is copied again by itself.");
        self.environment.catalog.ask_resync(table.id, None, &reason).await.map(drop)
    }

    /// The other tables of a destination that is gone have lost their rows with it.
    async fn copy_sharers(&self, table: &Table) -> Result<()> {
        let catalog = &self.environment.catalog;
        for other in catalog.list_sharers(table.id).await? {
            let what = format!("the destination {} was gone and is made anew", table.destination);
            let reason = Error::new(Code::DestinationTableChanged, what)
                .with_remedy("Nothing: the table is copied again by itself.");
            catalog.ask_resync(other.id, None, &reason).await?;
        }
        Ok(())
    }

    /// The plan as the catalog takes it. `log_end` is the end of the source's log, taken after the shape
    /// was looked at.
    pub(crate) async fn stored(&self, planned: &Planned<'_>, log_end: Lsn) -> Result<NewPlan> {
        let Planned { table, shape, plan, .. } = planned;
        let streams = &self.mirror.streams;
        let base = streams.iter().find(|stream| stream.n == table.stream).map_or(0, |stream| stream.base);
        Ok(NewPlan {
            oid: plan.oid,
            plan: plan_value(plan)?,
            // Not above the epoch of the copy, which is the log's end less one, too: on a quiet source the log
            // does not grow in between, and what is copied would be swept.
            floor: Version::epoch(base, Lsn(log_end.0.saturating_sub(1))).0,
            rows_estimated: shape.rows_estimated,
            bytes_total: shape.bytes,
        })
    }

    /// Makes sure that the source tells of tables before the epochs of their copies are taken: one that was
    /// made anew is in no publication.
    pub(crate) async fn publish(&self, tables: &[(&Table, TableName)]) -> Result<()> {
        let Work { environment, mirror, session, .. } = self;
        let mark = environment.catalog.installation().await?.application(mirror.name());
        for stream in &mirror.streams {
            let told = tables.iter().filter(|(table, _)| table.stream == stream.n);
            let told: Vec<(&Table, TableName)> = told.map(|(table, name)| (*table, name.clone())).collect();
            if !told.is_empty() {
                publish(session, &mark, mirror, stream, &told).await?;
            }
        }
        Ok(())
    }
}
