//! The database and the tables of a mirror.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_replication::clickhouse::TableState as Found;
use millrace_terms::Result;
use millrace_terms::fault::{self, Point};
use millrace_workflows::contract;
use millrace_workflows::payload::MirrorRef;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::Environment;
use crate::{alive, check};

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::PrepareDestination)]
    pub(crate) async fn prepare_destination(
        self: Arc<Self>,
        ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<(), ActivityError> {
        let done = alive::interruptible(&ctx, Box::pin(prepare(&self.0, &mirror.mirror))).await;
        self.0.outcome(&ctx, &mirror.mirror, None, done).await
    }
}

async fn prepare(environment: &Environment, name: &str) -> Result<()> {
    let mirror = environment.catalog.get_mirror(name).await?;
    let destination = environment.destination(&mirror).await?;
    destination.clickhouse.create_database(&destination.cluster).await?;
    for table in &mirror.tables {
        let plan = environment.plan(table.id).await?;
        // Until it is prepared, rows in the table are not ours.
        if mirror.prepared_at.is_none() {
            let found = check::refuse_occupied(&destination.clickhouse, &plan).await?;
            if found == Found::Missing {
                environment.catalog.mark_made(table.id).await?;
            }
        }
        destination.clickhouse.create_table(&plan, &destination.cluster).await?;
        fault::here(Point::DestinationMade);
    }
    Ok(())
}
