//! The workflow that checks a draft: a peer, a mirror's specification, or a listing of tables. It
//! exists so that peers are dialled from the workers' network, and never by the server.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult, WorkflowTermination};

use crate::contract::CheckActivities;
use crate::failure::{self, Ended};
use crate::options;
use crate::payload::CheckInput;

/// The workflow that checks a draft, under the id [`crate::ids::check`]. The answer is in the draft.
#[workflow]
pub struct CheckWorkflow {
    input: CheckInput,
}

#[workflow_methods]
impl CheckWorkflow {
    /// Takes the input.
    #[init]
    pub fn new(_view: &WorkflowContextView, input: CheckInput) -> Self {
        Self { input }
    }

    /// Ends when the answer is in the draft.
    #[run(name = "CheckWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let input = ctx.state(|workflow| workflow.input.clone());
        let done = ctx.execute_activity(CheckActivities::check, input, options::check()).await;
        done.map_err(|error| match failure::of_activity(&error) {
            Ended::Stopped => WorkflowTermination::cancelled(),
            Ended::Failed(error) => failure::application(error).into(),
            Ended::Unstaffed => {
                let text = format!("no worker polls the queue {}", ctx.task_queue());
                failure::application(millrace_terms::Error::new(millrace_terms::Code::NoWorkers, text)).into()
            }
        })
    }
}
