//! Tables join and leave a running mirror. What is to be done is in the catalog; each step may be
//! repeated, and none stops the other tables.
//!
//! A table that joins is published, made in the destination, and then, in one transaction that fences
//! the stream's attempt, given the plan of its shape as it is now. So the argument is that of a resync by
//! another plan (see `resync`): the attempt that goes on knows the table before the epoch of its copy is
//! taken. Its copy sweeps what an earlier membership left in the destination.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_catalog::edits::TableEdit;
use millrace_catalog::tables::Table;
use millrace_replication::clickhouse::TableState as Found;
use millrace_replication::postgres::{epoch, publication, tree};
use millrace_terms::{EventCode, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{MirrorRef, TableCopy};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::{Destination, Environment};
use crate::resync::Work;
use crate::stream::LEASE;
use crate::{alive, finish_copy};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::EditTables)]
    pub(crate) async fn edit_tables(
        self: Arc<Self>,
        ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<(), ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(edit(&self.0, &mirror.mirror))).await;
        self.0.outcome(&ctx, &mirror.mirror, None, done).await
    }
}

async fn edit(environment: &Environment, name: &str) -> Result<()> {
    let catalog = &environment.catalog;
    let edits = catalog.list_edits(name).await?;
    if edits.is_empty() {
        return Ok(());
    }
    // Behind the edits: a table that was added again since is seen as a member.
    let mirror = catalog.get_mirror(name).await?;
    let session = environment.dial(&mirror).await?;
    let destination = environment.destination(&mirror).await?;
    let database = &environment.source(&mirror).await?.database;
    let work = Work { environment, mirror: &mirror, session: &session, destination: &destination, database };
    // First those that leave: the same table may join again.
    let (joining, leaving): (Vec<Table>, Vec<Table>) =
        edits.into_iter().partition(|table| table.edit == Some(TableEdit::Join));
    for table in &leaving {
        leave(&work, table).await?;
    }
    for table in &joining {
        match join(&work, table).await {
            // A resync tries again.
            Err(error) if !error.is_retryable() => work.fail(table, &error).await?,
            joined => joined?,
        }
    }
    Ok(())
}

async fn join(work: &Work<'_>, table: &Table) -> Result<()> {
    let Destination { clickhouse, cluster, .. } = work.destination;
    let planned = work.planned_anew(table).await?;
    let log_end = epoch::log_end(work.session).await?;
    work.publish(&[(table, table.source.clone())]).await?;
    match clickhouse.table_state(&planned.plan).await? {
        Found::Ready => {}
        Found::Differs(error) => return Err(error),
        Found::Missing => {
            clickhouse.create_database(cluster).await?;
            clickhouse.create_table(&planned.plan, cluster).await?;
        }
    }
    let plan = work.stored(&planned, log_end).await?;
    if work.environment.catalog.join_table(table.id, &plan).await? {
        work.environment
            .tell(
                work.mirror.name(),
                &table.source,
                EventCode::TableJoined,
                &format!("{} joins the mirror", table.source),
            )
            .await?;
    }
    Ok(())
}

async fn leave(work: &Work<'_>, table: &Table) -> Result<()> {
    let done = match unpublish(work, table).await {
        Ok(()) => erase(work, table).await,
        failed => failed,
    };
    match done {
        Ok(()) => {
            work.environment
                .tell(
                    work.mirror.name(),
                    &table.source,
                    EventCode::TableLeft,
                    &format!("{} left the mirror", table.source),
                )
                .await?
        }
        Err(error) if error.is_retryable() => return Err(error),
        // Nothing that a retry mends, and nothing that harms: a person is told what stays behind.
        Err(error) => {
            let error = error.context(format_args!("{} left the mirror, and something stays", table.source));
            let source = table.source.to_string();
            work.environment.warn(work.mirror.name(), Some(&source), &error).await;
        }
    }
    work.environment.catalog.finish_leaving(table.id).await
}

/// Takes the table out of its stream's publication, if that is the mirror's own, unless it was added to
/// this stream again.
async fn unpublish(work: &Work<'_>, table: &Table) -> Result<()> {
    let mirror = work.mirror;
    let is_member =
        mirror.tables.iter().any(|member| member.source == table.source && member.stream == table.stream);
    let stream = mirror.streams.iter().find(|stream| stream.n == table.stream);
    match stream {
        Some(stream) if !is_member && mirror.spec.settings.publication.is_empty() => {
            if work.environment.plan(table.id).await?.merges_heirs {
                // What inherits from it is in no table of the mirror any more.
                let tree = tree::of(work.session, &[table.oid], true).await?.remove(&table.oid);
                for heir in tree.iter().flat_map(|tree| &tree.leaves).filter(|leaf| leaf.oid != table.oid) {
                    publication::remove(work.session, &stream.publication, &heir.name).await?;
                }
            }
            publication::remove(work.session, &stream.publication, &table.source).await
        }
        _ => Ok(()),
    }
}

/// Drops the destination table if that is asked for, unless the table has joined again. Where others
/// write into it, only the table's own rows are deleted.
async fn erase(work: &Work<'_>, table: &Table) -> Result<()> {
    let joins_again =
        |member: &Table| member.source == table.source && member.destination == table.destination;
    if table.edit != Some(TableEdit::Erase) || work.mirror.tables.iter().any(joins_again) {
        return Ok(());
    }
    let Destination { clickhouse, cluster, .. } = work.destination;
    let catalog = &work.environment.catalog;
    if catalog.list_sharers(table.id).await?.is_empty() {
        return clickhouse.drop_table(&table.destination, cluster).await;
    }
    let plan = work.environment.plan(table.id).await?;
    if plan.own.source.is_none() {
        return Ok(());
    }
    // An attempt that was replaced sends for a lease's time at most: nothing brings the rows back.
    tokio::time::sleep(LEASE).await;
    let copy = TableCopy {
        mirror: work.mirror.name().to_owned(),
        table_id: table.id,
        table: table.source.to_string(),
        copy_no: table.copy_no,
    };
    let stream = catalog.get_stream(work.mirror.name(), table.stream).await?;
    finish_copy::end_older_queries(work.destination, &copy, &stream).await?;
    clickhouse.purge(&plan, u128::MAX, cluster).await
}
