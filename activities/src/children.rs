//! Streams and copies whose workflows were ended by force: terminated by hand in Temporal, say. Such a
//! workflow reports nothing, and asking it to stop counts as done, so its mirror would wait for it, or take it
//! for alive, for ever. Somebody who looks from outside reports in its stead; the mirror then does what it does
//! at the end of any stream or copy: it starts it again where it should run.
//!
//! Two looks keep a report from hitting a successor under the same id: the mirror takes the child for alive,
//! and the newest workflow of the id was ended by force.

use std::collections::BTreeSet;
use std::future::ready;
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use millrace_catalog::events::NewEvent;
use millrace_terms::{Code, Error, EventCode, Result};
use millrace_workflows::payload::{Children, CopyEnded, Outcome, StreamEnded};
use millrace_workflows::{MirrorWorkflow, ids};
use temporalio_client::{
    Client, UntypedWorkflow, WorkflowDescribeOptions, WorkflowExecutionStatus, WorkflowHandle,
    WorkflowQueryOptions, WorkflowSignalOptions,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_sdk::activities::ActivityContext;

use crate::environment::Environment;

/// How far back ends by force are looked for: longer than workers are away as a rule. What was ended before
/// that is found by whoever ends it again, or by a new start of the mirror's workflow.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3_600);

/// Ends by force that are looked at in one round, the newest first.
const LOOKED_AT_MAX: usize = 1_000;

type Mirror = WorkflowHandle<Client, <MirrorWorkflow as HasWorkflowDefinition>::Run>;

/// Reports the end of every stream and copy that was ended by force.
///
/// # Errors
/// TEMPORAL_UNREACHABLE; the next round looks again.
pub(crate) async fn report_ended(environment: &Environment, ctx: &ActivityContext) -> Result<()> {
    let ended: BTreeSet<String> =
        ended_by_force(ctx).collect::<Vec<_>>().await.into_iter().collect::<Result<_>>()?;
    let mirrors: BTreeSet<&str> = ended.iter().filter_map(|id| ids::mirror_of_child(id)).collect();
    for name in mirrors {
        let mirror: Mirror = ctx.client().get_workflow_handle(ids::mirror(name));
        // One that is gone, or of which no worker tells anything now, has nobody to be told.
        let Ok(children) = mirror.query(MirrorWorkflow::children, (), WorkflowQueryOptions::default()).await
        else {
            continue;
        };
        for child in Child::of(name, &children) {
            if ended.contains(&child.workflow) && is_ended(ctx, &child.workflow).await? {
                child.report(environment, name, &mirror).await?;
            }
        }
    }
    Ok(())
}

/// Ids of children of this installation's mirrors that were ended by force.
fn ended_by_force(ctx: &ActivityContext) -> impl Stream<Item = Result<String>> {
    let since = Timestamp::try_from(SystemTime::now() - LOOK_BACK).unwrap_or(Timestamp::MIN);
    let query = format!(
        "WorkflowType IN ('StreamWorkflow', 'SnapshotWorkflow') AND ExecutionStatus IN ('Terminated', 'TimedOut')
         AND TaskQueue = '{}' AND CloseTime > '{since}'",
        ctx.info().task_queue
    );
    ctx.client()
        .list_workflows(query, Default::default())
        .take(LOOKED_AT_MAX)
        .map(|listed| listed.map(|workflow| workflow.id().to_owned()).map_err(unreachable))
        .filter(|id| ready(!matches!(id, Ok(id) if ids::mirror_of_child(id).is_none())))
}

/// Whether the newest workflow of the id was ended by force.
async fn is_ended(ctx: &ActivityContext, id: &str) -> Result<bool> {
    let newest: WorkflowHandle<Client, UntypedWorkflow> = ctx.client().get_workflow_handle(id);
    let described = newest.describe(WorkflowDescribeOptions::default()).await.map_err(unreachable)?;
    Ok(matches!(described.status(), WorkflowExecutionStatus::Terminated | WorkflowExecutionStatus::TimedOut))
}

fn unreachable(error: impl std::fmt::Display) -> Error {
    Error::new(Code::TemporalUnreachable, error.to_string())
}

/// A child that its mirror takes for alive.
struct Child {
    workflow: String,
    end: End,
}

/// What it would have reported.
enum End {
    Stream(StreamEnded),
    Copy(CopyEnded, String),
}

impl Child {
    fn of(mirror: &str, children: &Children) -> Vec<Self> {
        let outcome = Outcome::Stopped;
        let streams = children.streams.iter().map(|n| Self {
            workflow: ids::stream(mirror, *n),
            end: End::Stream(StreamEnded { stream: *n, outcome: outcome.clone() }),
        });
        let copies = children.copies.iter().map(|copy| Self {
            workflow: ids::snapshot(mirror, &copy.table, copy.copy_no),
            end: End::Copy(
                CopyEnded { table_id: copy.table_id, copy_no: copy.copy_no, outcome: outcome.clone() },
                copy.table.clone(),
            ),
        });
        streams.chain(copies).collect()
    }

    async fn report(self, environment: &Environment, name: &str, mirror: &Mirror) -> Result<()> {
        let text =
            format!("the workflow {} was ended by force, and the mirror goes on without it", self.workflow);
        let event = NewEvent::info(name, EventCode::WorkflowReplaced, &text);
        let options = WorkflowSignalOptions::default();
        let (told, event) = match self.end {
            End::Stream(ended) => (mirror.signal(MirrorWorkflow::stream_ended, ended, options).await, event),
            End::Copy(ended, table) => {
                (mirror.signal(MirrorWorkflow::copy_ended, ended, options).await, event.on_table(&table))
            }
        };
        told.map_err(unreachable)?;
        environment.catalog.add_event(&event).await
    }
}
