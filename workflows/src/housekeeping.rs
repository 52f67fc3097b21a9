//! The workflow of one round of housekeeping; a Temporal schedule starts it.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowResult};

use crate::contract::HousekeepingActivities;
use crate::options;
use crate::payload::HousekeepingReport;

/// One round of housekeeping, started by the schedule [`crate::ids::Queues::housekeeping`].
#[workflow]
#[derive(Default)]
pub struct HousekeepingWorkflow;

#[workflow_methods]
impl HousekeepingWorkflow {
    /// Moves idle slots forward, measures lag, deletes what is past its time.
    #[run(name = "HousekeepingWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _input: ()) -> WorkflowResult<HousekeepingReport> {
        Ok(ctx.execute_activity(HousekeepingActivities::housekeep, (), options::housekeeping()).await?)
    }
}
