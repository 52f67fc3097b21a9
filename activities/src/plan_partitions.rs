//! A table cut into ranges of blocks, into the catalog.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_catalog::mirrors::Mirror;
use millrace_catalog::partitions::NewPartition;
use millrace_replication::copy::covers;
use millrace_replication::postgres::Session;
use millrace_replication::postgres::describe::{self, Leaf, TableShape};
use millrace_replication::postgres::partition::{self, Partition};
use millrace_replication::table::TablePlan;
use millrace_terms::fault::{self, Point};
use millrace_terms::{Code, Error, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{CopyPlan, TableCopy};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::alive;
use crate::environment::Environment;
use crate::reshaped::Reshaped;

/// Bytes of a block of the source; a server built with another size only shows another estimate.
const BLOCK_BYTES: u64 = 8192;

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::PlanPartitions)]
    pub(crate) async fn plan_partitions(
        self: Arc<Self>,
        ctx: ActivityContext,
        copy: TableCopy,
    ) -> Result<CopyPlan, ActivityError> {
        let reshaped = Reshaped::of(&ctx, &self.0, &copy);
        let done = alive::interruptible(&ctx, Box::pin(plan(&self.0, &copy, &reshaped))).await;
        self.0.outcome(&ctx, &copy.mirror, Some(&copy.table), done).await
    }
}

async fn plan(environment: &Environment, copy: &TableCopy, reshaped: &Reshaped<'_>) -> Result<CopyPlan> {
    let catalog = &environment.catalog;
    let state = catalog.copy_state(copy.table_id, copy.copy_no).await?;
    let partitions = if state.planned {
        Vec::new()
    } else {
        let mirror = catalog.get_mirror(&copy.mirror).await?;
        let session = environment.dial_log(&mirror, catalog.get_table(copy.table_id).await?.stream).await?;
        let table = Arc::new(environment.plan(copy.table_id).await?);
        // Behind the epoch: what the plan does not cover now, the stream may never tell.
        let mut shape = match shape(&session, &table).await {
            Err(error) if error.code() == Code::TableSchemaChanged => {
                return Err(reshaped.plan_anew(error).await);
            }
            shape => shape?,
        };
        if let Err(error) = covers(&table, &shape) {
            return Err(reshaped.plan_anew(error).await);
        }
        if let Some(error) = shape.foreign_leaf() {
            return Err(error);
        }
        let all = shape.leaves.len();
        let covered = catalog.covered_leaves(copy.table_id, copy.copy_no).await?;
        shape.leaves.retain(|leaf| covered.contains(&leaf.oid));
        // The size is known of all of them together.
        let bytes = if shape.leaves.len() == all { shape.bytes } else { 0 };
        match table.append_only {
            true => vec![whole(&table, shape.bytes)],
            false => cut(&session, &mirror, &shape.leaves, bytes).await?,
        }
    };
    fault::here(Point::PartitionsCut);
    let planned = catalog.plan_partitions(copy.table_id, copy.copy_no, &partitions).await?;
    fault::here(Point::PartitionsPlanned);
    let count = u32::try_from(planned.partitions).unwrap_or(u32::MAX);
    Ok(CopyPlan { partitions: count, bytes: planned.bytes })
}

/// The table as it is on the source now, whatever it is called.
///
/// # Errors
/// SOURCE_TABLE_MISSING; TABLE_SCHEMA_CHANGED if another table bears its name.
pub(crate) async fn shape(session: &Session, table: &TablePlan) -> Result<TableShape> {
    let name = describe::name_of(session, table.oid).await?;
    let name = name.as_ref().unwrap_or(&table.source);
    let mut shapes = describe::describe(session, std::slice::from_ref(name)).await?;
    match shapes.pop() {
        Some(shape) if shape.oid == table.oid && table.merges_heirs => Ok(shape.with_heirs()),
        Some(shape) if shape.oid == table.oid => Ok(shape),
        _ => {
            let text = format!("{} was dropped and made anew", table.source);
            Err(Error::new(Code::TableSchemaChanged, text).with("table", table.source.to_string()))
        }
    }
}

/// An append-only table is read at once: see `append`.
fn whole(table: &TablePlan, bytes: u64) -> NewPartition {
    NewPartition {
        leaf: table.source.clone(),
        leaf_oid: table.oid,
        filenode: 0,
        first_block: 0,
        end_block: None,
        bytes,
    }
}

/// Ranges of these leaves, with their estimated sizes; `bytes` is that of all together.
pub(crate) async fn cut(
    session: &Session,
    mirror: &Mirror,
    leaves: &[Leaf],
    bytes: u64,
) -> Result<Vec<NewPartition>> {
    let ranges = partition::plan(session, leaves, mirror.spec.settings.snapshot.partition_bytes).await?;
    let bounded = |range: &Partition| Some(u64::from(range.end_block? - range.first_block) * BLOCK_BYTES);
    // What the bounded ranges do not cover is in the last range of some leaf.
    let covered: u64 = ranges.iter().filter_map(bounded).sum();
    let open = ranges.iter().filter(|range| range.end_block.is_none()).count().max(1) as u64;
    let rest = bytes.saturating_sub(covered) / open;
    Ok(ranges
        .into_iter()
        .map(|range| NewPartition {
            bytes: bounded(&range).unwrap_or(rest),
            leaf: range.leaf,
            leaf_oid: range.leaf_oid,
            filenode: range.filenode,
            first_block: u64::from(range.first_block),
            end_block: range.end_block.map(u64::from),
        })
        .collect())
}
