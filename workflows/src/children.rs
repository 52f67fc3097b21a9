//! How workflows start and stop each other: by fixed ids, abandoned, so that every one of them may
//! continue as new, or end, while the others go on.
//!
//! A workflow reports its end before it closes, and its id is free only when it has closed. So for a
//! moment an id is taken by a run of which nothing is to be expected any more: who starts the next one
//! waits for that moment to pass.

use std::time::Duration;

use temporalio_common::WorkflowDefinition;
use temporalio_common::data_converters::TemporalDeserializable;
use temporalio_common::error::ChildWorkflowStartError;
use temporalio_common::search_attributes::SearchAttributes;
use temporalio_workflow::{
    CancelExternalWorkflowError, ChildWorkflowOptions, ParentClosePolicy, WorkflowCancellationToken,
    WorkflowContext,
};

use crate::{failure, ids};

/// Time between two looks at an id that is taken: the grain of a Temporal server's timers.
const CLOSING_POLL: Duration = Duration::from_secs(1);

/// Attempts to start a workflow whose id is taken. One that reported its end closes within
/// milliseconds of work of the same workers that carry out the attempts, so one that is there for so
/// long really runs: it was started for an earlier workflow of the mirror, and does what is asked for.
const START_ATTEMPTS: u32 = 15;

/// How the children of a mirror are started.
pub(crate) fn options(mirror: &str, id: String, summary: String) -> ChildWorkflowOptions {
    ChildWorkflowOptions::builder()
        .workflow_id(id)
        .static_summary(summary)
        .search_attributes(SearchAttributes::new([ids::MIRROR_NAME.value_set(mirror.to_owned())]))
        .parent_close_policy(ParentClosePolicy::Abandon)
        // Children are told to stop by name, never by the end of a run of their parent.
        .cancellation_token(WorkflowCancellationToken::new())
        .build()
}

/// Starts a child, or finds that it runs. `begin` is called before every attempt, because a report of
/// the child may come together with the word that it runs; it says whether the child is still wanted.
///
/// # Errors
/// Those of the start, but not that the child runs already.
pub(crate) async fn start<W, C>(
    ctx: &WorkflowContext<W>,
    child: impl Fn() -> C,
    input: C::Input,
    options: ChildWorkflowOptions,
    begin: impl Fn() -> bool,
) -> Result<(), ChildWorkflowStartError>
where
    C: WorkflowDefinition + 'static,
    C::Input: Clone,
    C::Output: TemporalDeserializable,
{
    for attempt in 1..=START_ATTEMPTS {
        if !begin() {
            return Ok(());
        }
        match ctx.start_child_workflow(child(), input.clone(), options.clone()).await {
            Err(error) if failure::is_running_already(&error) => {}
            started => return started.map(drop),
        }
        if attempt < START_ATTEMPTS {
            ctx.timer(CLOSING_POLL).await;
        }
    }
    Ok(())
}

/// Asks a workflow to stop; `false` if there never was one.
pub(crate) async fn cancel<W>(ctx: &WorkflowContext<W>, id: String, reason: &str) -> bool {
    let stopped = ctx.external_workflow(id, None).cancel(Some(reason.to_owned())).await;
    !matches!(stopped, Err(CancelExternalWorkflowError::NotFound(_)))
}
