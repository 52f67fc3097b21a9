//! The workflow that drops a mirror, in whatever state it is and whether its peers can be reached
//! or not. It fences first, so that nothing is written behind its back; what it cannot remove is
//! named in its result and, if the mirror is forgotten all the same, in an event.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use millrace_terms::Error;
use temporalio_common::error::ActivityExecutionError;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{WorkflowContext, WorkflowContextView, WorkflowResult, WorkflowTermination};

use crate::contract::DropActivities;
use crate::failure::{self, Ended};
use crate::payload::{DropInput, DropReport, DropScope, Leftover, MirrorRef, WorkflowIds};
use crate::{children, ids, options};

/// Why workflows of the mirror are told to stop.
const DROPPED: &str = "the mirror is dropped";

/// The workflow that drops a mirror, under the id [`ids::drop`].
#[workflow]
pub struct DropMirrorWorkflow {
    input: DropInput,
}

#[workflow_methods]
impl DropMirrorWorkflow {
    /// Takes the input.
    #[init]
    pub fn new(_view: &WorkflowContextView, input: DropInput) -> Self {
        Self { input }
    }

    /// Fence, stop, remove, forget; answers what stays behind.
    #[run(name = "DropMirrorWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<DropReport> {
        let input = ctx.state(|workflow| workflow.input.clone());
        let mirror = MirrorRef { mirror: input.mirror.clone() };

        let begin =
            ctx.execute_activity(DropActivities::begin_drop, mirror.clone(), options::catalog("fence"));
        let scope = begin.await.map_err(ended)?;
        let running = workflows(&input.mirror, &scope);
        for id in &running {
            // They are fenced already, so nothing waits for them here.
            children::cancel(ctx, id.clone(), DROPPED).await;
        }

        let options = options::clean_up("slots and publications");
        let source = ctx.execute_activity(DropActivities::drop_source, mirror.clone(), options).await;
        let mut leftovers = leftovers(source, scope.source_objects)?;
        if input.options.destination_tables {
            let options = options::clean_up("destination tables");
            let destination = ctx.execute_activity(DropActivities::drop_destination, mirror, options).await;
            leftovers.extend(self::leftovers(destination, scope.destination_objects)?);
        }
        ctx.set_current_details(format!("{} objects stay behind", leftovers.len()));
        if input.options.keep_if_left && !leftovers.is_empty() {
            return Ok(DropReport { mirror: input.mirror, leftovers, kept: true });
        }
        // As soon as it is forgotten, another mirror of its name may want their ids. One that does not
        // close in time keeps nothing from being forgotten.
        let options = options::closing("its workflows have closed");
        let _open =
            ctx.execute_activity(DropActivities::await_closed, WorkflowIds { ids: running }, options).await;

        let report = DropReport { mirror: input.mirror, leftovers, kept: false };
        let forget = options::catalog("forget the mirror");
        ctx.execute_activity(DropActivities::forget_mirror, report.clone(), forget).await.map_err(ended)?;
        Ok(report)
    }
}

fn ended(error: ActivityExecutionError) -> WorkflowTermination {
    match failure::of_activity(&error) {
        Ended::Failed(error) => failure::application(error).into(),
        Ended::Stopped | Ended::Unstaffed => WorkflowTermination::cancelled(),
    }
}

/// The ids of every workflow of the mirror that may be running.
fn workflows(mirror: &str, scope: &DropScope) -> Vec<String> {
    let streams = scope.streams.iter().map(|stream| ids::stream(mirror, *stream));
    let copies = scope.copies.iter().map(|copy| ids::snapshot(mirror, &copy.table, copy.copy_no));
    std::iter::once(ids::mirror(mirror)).chain(streams).chain(copies).collect()
}

/// What stays behind: as the activity says, or everything if it never came through.
fn leftovers(
    done: Result<Vec<Leftover>, ActivityExecutionError>,
    everything: Vec<String>,
) -> WorkflowResult<Vec<Leftover>> {
    let error: Error = match done.map_err(|error| (failure::of_activity(&error), error)) {
        Ok(leftovers) => return Ok(leftovers),
        Err((Ended::Failed(error), _)) => error,
        Err((Ended::Unstaffed, error)) => failure::from_message(&error.to_string()),
        Err((Ended::Stopped, _)) => return Err(WorkflowTermination::cancelled()),
    };
    Ok(everything.into_iter().map(|object| Leftover { object, error: error.clone() }).collect())
}
