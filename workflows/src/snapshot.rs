//! The workflow of one copy of one table: epoch, partitions, copiers, sweep. What is done is in the
//! catalog, so a copy that was stopped goes on where it was when it is started again.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use millrace_terms::{Code, Error};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    SignalWorkflowOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView, WorkflowResult,
    WorkflowTermination, workflows,
};

use crate::contract::{MirrorActivities, SnapshotActivities};
use crate::failure::{self, Ended};
use crate::ids::Queues;
use crate::options::{self, Patience};
use crate::payload::{Copier, CopyEnded, CopyFailure, CopyResult, Note, Outcome, SnapshotInput};
use crate::{MirrorWorkflow, ids};

/// The workflow of one copy of one table, under the id [`ids::snapshot`].
#[workflow]
pub struct SnapshotWorkflow {
    input: SnapshotInput,
}

type Context = WorkflowContext<SnapshotWorkflow>;

#[workflow_methods]
impl SnapshotWorkflow {
    /// Takes the input.
    #[init]
    pub fn new(_view: &WorkflowContextView, input: SnapshotInput) -> Self {
        Self { input }
    }

    /// Copies the table; a failure puts the table into ERROR and leaves the others alone.
    #[run(name = "SnapshotWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<CopyResult> {
        let input = ctx.state(|workflow| workflow.input.clone());
        let ended = copy(ctx, &input).await.map_err(|ended| ended.or_stopped(&ctx.cancellation_token()));
        match ended {
            Ok(result) => {
                report(ctx, &input, Outcome::Done).await;
                Ok(result)
            }
            Err(Ended::Failed(error)) => {
                let failed = CopyFailure { copy: input.copy.clone(), error: error.clone() };
                let options = options::catalog_detached("the table goes to ERROR");
                // A mirror that is gone has no table to mark.
                let _gone = ctx.execute_activity(SnapshotActivities::fail_copy, failed, options).await;
                report(ctx, &input, Outcome::Failed(error.clone())).await;
                Err(failure::application(error).into())
            }
            Err(Ended::Stopped | Ended::Unstaffed) => {
                report(ctx, &input, Outcome::Stopped).await;
                Err(WorkflowTermination::cancelled())
            }
        }
    }
}

async fn copy(ctx: &Context, input: &SnapshotInput) -> Result<CopyResult, Ended> {
    let token = ctx.cancellation_token();
    let ended = |error| failure::of_activity(&error);

    let options = options::copy_step("copy epoch", &token);
    let epoch = ctx
        .execute_activity(SnapshotActivities::take_epoch, input.copy.clone(), options)
        .await
        .map_err(ended)?;

    let options = options::copy_step("partitions", &token);
    let plan = ctx
        .execute_activity(SnapshotActivities::plan_partitions, input.copy.clone(), options)
        .await
        .map_err(ended)?;
    ctx.set_current_details(format!("epoch {epoch}, {} partitions, {} bytes", plan.partitions, plan.bytes));

    // The first copier that fails ends the others: the table is in error then.
    let copiers = token.child_token();
    let all = (0..input.copiers.max(1).min(plan.partitions.max(1))).map(|number| {
        let copiers = copiers.clone();
        async move {
            let done = copier(ctx, input, number, &copiers).await;
            if done.is_err() {
                copiers.cancel();
            }
            done
        }
    });
    let mut stopped = Ok(());
    for done in workflows::join_all(all).await {
        match done {
            Err(failed @ Ended::Failed(_)) => return Err(failed),
            Err(other) => stopped = Err(other),
            Ok(()) => {}
        }
    }
    stopped?;

    let options = options::copy_step("wait for the stream, then sweep", &token);
    ctx.execute_activity(SnapshotActivities::finish_copy, input.copy.clone(), options).await.map_err(ended)
}

async fn copier(
    ctx: &Context,
    input: &SnapshotInput,
    number: u32,
    token: &WorkflowCancellationToken,
) -> Result<(), Ended> {
    let queue = Queues::of_control(ctx.task_queue()).snapshot();
    let mut patience = Patience::Tell;
    loop {
        let options = options::copier(queue.clone(), number, patience, token);
        let copier = Copier { copy: input.copy.clone(), number };
        match ctx.execute_activity(SnapshotActivities::copy_partitions, copier, options).await {
            Ok(_) => return Ok(()),
            Err(error) => match failure::of_activity(&error) {
                Ended::Unstaffed => {
                    unstaffed(ctx, input, &queue).await;
                    patience = Patience::Wait;
                }
                ended => return Err(ended),
            },
        }
    }
}

/// Says that no worker takes up the copy.
async fn unstaffed(ctx: &Context, input: &SnapshotInput, queue: &str) {
    let error =
        Error::new(Code::NoWorkers, format!("no worker polls the queue {queue}")).with("queue", queue);
    let note = Note { mirror: input.copy.mirror.clone(), table_id: Some(input.copy.table_id), error };
    // An event that cannot be written must not stop the copy.
    let _unwritten =
        ctx.execute_activity(MirrorActivities::note_event, note, options::catalog("no workers")).await;
}

/// Tells the mirror. If that is gone, nobody needs to be told.
async fn report(ctx: &Context, input: &SnapshotInput, outcome: Outcome) {
    let ended = CopyEnded { table_id: input.copy.table_id, copy_no: input.copy.copy_no, outcome };
    let detached =
        SignalWorkflowOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
    let mirror = ctx.external_workflow(ids::mirror(&input.copy.mirror), None);
    let _gone = mirror.signal(MirrorWorkflow::copy_ended, ended, detached).await;
}
