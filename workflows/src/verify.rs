//! The workflow that compares a mirror's tables with their sources. What is asked for, the ranges and what was
//! found are in the catalog, so a comparison of any size costs a handful of events, and what is done stays
//! done, whatever dies.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    WorkflowContext, WorkflowContextView, WorkflowResult, WorkflowTermination, workflows,
};

use crate::contract::VerifyActivities;
use crate::failure::{self, Ended};
use crate::ids::Queues;
use crate::options;
use crate::payload::{Comparer, Outcome, VerifyEnd, VerifyRef, VerifyReport};

/// Comparers of one comparison: each holds a connection to both sides, and reads as fast as it can. More
/// would be felt by whoever works on the source.
const COMPARERS: u32 = 2;

/// The workflow of one comparison, under the id [`crate::ids::verify`].
#[workflow]
pub struct VerifyWorkflow {
    verify: VerifyRef,
}

#[workflow_methods]
impl VerifyWorkflow {
    /// Takes the input.
    #[init]
    pub fn new(_view: &WorkflowContextView, verify: VerifyRef) -> Self {
        Self { verify }
    }

    /// Cuts, compares, and writes down how it ended.
    #[run(name = "VerifyWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<VerifyReport> {
        let verify = ctx.state(|workflow| workflow.verify.clone());
        let done = compare(ctx, &verify).await.map_err(|ended| ended.or_stopped(&ctx.cancellation_token()));
        let outcome = match &done {
            Ok(()) => Outcome::Done,
            Err(Ended::Failed(error)) => Outcome::Failed(error.clone()),
            Err(Ended::Stopped | Ended::Unstaffed) => Outcome::Stopped,
        };
        let end = VerifyEnd { verify, outcome };
        let options = options::catalog_detached("the comparison is over");
        let report = ctx.execute_activity(VerifyActivities::end_verification, end, options).await;
        match done {
            Ok(()) => match report {
                Ok(report) => Ok(report),
                Err(error) => match failure::of_activity(&error) {
                    Ended::Failed(error) => Err(failure::application(error).into()),
                    Ended::Stopped | Ended::Unstaffed => Err(WorkflowTermination::cancelled()),
                },
            },
            // Of a mirror that is gone nothing can be written down.
            Err(Ended::Failed(error)) => Err(failure::application(error).into()),
            Err(Ended::Stopped | Ended::Unstaffed) => Err(WorkflowTermination::cancelled()),
        }
    }
}

async fn compare(ctx: &WorkflowContext<VerifyWorkflow>, verify: &VerifyRef) -> Result<(), Ended> {
    let token = ctx.cancellation_token();
    let options = options::copy_step("cut into ranges", &token);
    let plan = ctx.execute_activity(VerifyActivities::plan_verification, verify.clone(), options).await;
    let plan = plan.map_err(|error| failure::of_activity(&error))?;
    ctx.set_current_details(format!(
        "{} tables, {} ranges; {} tables are skipped",
        plan.tables, plan.ranges, plan.skipped
    ));
    let queue = Queues::of_control(ctx.task_queue()).snapshot();
    // The first one that fails ends the others.
    let comparers = token.child_token();
    let count = u64::from(COMPARERS).min(plan.ranges);
    let all = (0..COMPARERS).filter(|number| u64::from(*number) < count).map(|number| {
        let comparers = comparers.clone();
        let options = options::comparer(queue.clone(), number, &comparers);
        let comparer = Comparer { verify: verify.clone(), number };
        async move {
            let done = ctx.execute_activity(VerifyActivities::compare_ranges, comparer, options).await;
            if done.is_err() {
                comparers.cancel();
            }
            done.map_err(|error| failure::of_activity(&error))
        }
    });
    let mut stopped = Ok(());
    for done in workflows::join_all(all).await {
        match done {
            Err(failed @ Ended::Failed(_)) => return Err(failed),
            Err(other) => stopped = Err(other),
            Ok(_) => {}
        }
    }
    stopped
}
