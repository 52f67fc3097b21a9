//! The workflow of one stream: one activity that runs as long as there are changes, on whichever
//! worker is alive. It ends when it is cancelled or when the stream failed for good.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use millrace_terms::{Code, Error};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    SignalWorkflowOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView, WorkflowResult,
    WorkflowTermination,
};

use crate::contract::{MirrorActivities, StreamActivities};
use crate::failure::{self, Ended};
use crate::ids::Queues;
use crate::options::{self, Patience};
use crate::payload::{Note, Outcome, StreamEnd, StreamEnded, StreamRef};
use crate::{MirrorWorkflow, ids};

/// The workflow of one stream, under the id [`ids::stream`].
#[workflow]
pub struct StreamWorkflow {
    stream: StreamRef,
}

#[workflow_methods]
impl StreamWorkflow {
    /// Takes the input.
    #[init]
    pub fn new(_view: &WorkflowContextView, stream: StreamRef) -> Self {
        Self { stream }
    }

    /// Streams until told to stop; answers the position.
    #[run(name = "StreamWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<StreamEnd> {
        let stream = ctx.state(|workflow| workflow.stream.clone());
        let queue = Queues::of_control(ctx.task_queue()).stream();
        let mut patience = Patience::Tell;
        loop {
            let options = options::stream(queue.clone(), patience, &ctx.cancellation_token());
            match ctx.execute_activity(StreamActivities::stream, stream.clone(), options).await {
                // It drains on cancellation, and answers as if it had ended by itself.
                Ok(end) => {
                    report(ctx, &stream, Outcome::Stopped).await;
                    return Ok(end);
                }
                Err(error) => match failure::of_activity(&error).or_stopped(&ctx.cancellation_token()) {
                    Ended::Unstaffed => {
                        unstaffed(ctx, &stream, &queue).await;
                        patience = Patience::Wait;
                    }
                    Ended::Stopped => {
                        report(ctx, &stream, Outcome::Stopped).await;
                        return Err(WorkflowTermination::cancelled());
                    }
                    Ended::Failed(error) => {
                        report(ctx, &stream, Outcome::Failed(error.clone())).await;
                        return Err(failure::application(error).into());
                    }
                },
            }
        }
    }
}

/// Says that no worker takes up the stream.
async fn unstaffed(ctx: &WorkflowContext<StreamWorkflow>, stream: &StreamRef, queue: &str) {
    let error =
        Error::new(Code::NoWorkers, format!("no worker polls the queue {queue}")).with("queue", queue);
    let note = Note { mirror: stream.mirror.clone(), table_id: None, error };
    // An event that cannot be written must not stop the stream.
    let _unwritten =
        ctx.execute_activity(MirrorActivities::note_event, note, options::catalog("no workers")).await;
}

/// Tells the mirror. If that is gone, nobody needs to be told.
async fn report(ctx: &WorkflowContext<StreamWorkflow>, stream: &StreamRef, outcome: Outcome) {
    let ended = StreamEnded { stream: stream.stream, outcome };
    let detached =
        SignalWorkflowOptions::builder().cancellation_token(WorkflowCancellationToken::new()).build();
    let mirror = ctx.external_workflow(ids::mirror(&stream.mirror), None);
    let _gone = mirror.signal(MirrorWorkflow::stream_ended, ended, detached).await;
}
