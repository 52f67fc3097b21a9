//! The workflow of a mirror: an entity that lives as long as the mirror does.
//!
//! It performs what [`crate::decide`] decides. Children are abandoned under fixed ids and report by
//! signal, so that it can continue as new at any time and finds them again.

#![expect(missing_docs, reason = "the macros make undocumented constants of the documented methods")]

use millrace_terms::Error;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    ChildWorkflowStartError, ContinueAsNewOptions, SyncWorkflowContext, WorkflowCancellationToken,
    WorkflowContext, WorkflowContextView, WorkflowResult, WorkflowTermination, workflows,
};

use crate::contract::{DropActivities, MirrorActivities};
use crate::decide::{Child, Progress, Step, snapshot_input};
use crate::failure::{self, Ended};
use crate::payload::{
    Children, CopyEnded, DropInput, DropOptions, DueTable, Figures, MirrorInput, MirrorRef, MirrorStatus,
    Resync, ResyncInput, StreamEnded, StreamRef,
};
use crate::phase::{Event, Phase};
use crate::{DropMirrorWorkflow, SnapshotWorkflow, StreamWorkflow, children, ids, options};

/// Why children are told to stop.
const STOP: &str = "the mirror stops";

/// What update handlers fail with; callers read it by [`failure::from_message`].
type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// The workflow of a mirror, under the id [`ids::mirror`].
#[workflow]
pub struct MirrorWorkflow {
    mirror: String,
    progress: Progress,
    /// Cancels the preparations, which may wait long, when the mirror is to be dropped.
    preparing: WorkflowCancellationToken,
    /// Cancels a resync that is being begun, when the mirror is to be dropped.
    resyncing: WorkflowCancellationToken,
    /// Cancels a resync that nobody asked for, when the mirror is to pause or to be dropped.
    resyncing_needed: WorkflowCancellationToken,
}

/// Whether the workflow goes on after a step.
enum Flow {
    GoOn,
    End,
}

#[workflow_methods]
impl MirrorWorkflow {
    /// Takes over where the run before ended.
    #[init]
    pub fn new(_view: &WorkflowContextView, input: MirrorInput) -> Self {
        Self {
            mirror: input.mirror,
            progress: input.progress.unwrap_or_default(),
            preparing: WorkflowCancellationToken::new(),
            resyncing: WorkflowCancellationToken::new(),
            resyncing_needed: WorkflowCancellationToken::new(),
        }
    }

    /// One step after the other, until the mirror is completed or handed over to be dropped.
    #[run(name = "MirrorWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<MirrorStatus> {
        // A run that goes on where another ended tells nothing by itself.
        ctx.set_current_details(ctx.state(|workflow| workflow.progress.details()));
        loop {
            if ctx.continue_as_new_suggested() && ctx.all_handlers_finished() {
                let input = ctx.state(|workflow| MirrorInput {
                    mirror: workflow.mirror.clone(),
                    progress: Some(workflow.progress.clone()),
                });
                ctx.continue_as_new(input, ContinueAsNewOptions::default())?;
            }
            let step = ctx.state(|workflow| workflow.progress.next());
            let is_over = step == Step::Finish;
            if let Flow::End = perform(ctx, step).await? {
                ctx.wait_condition(|_| ctx.all_handlers_finished()).await?;
                // Somebody may have dropped it just now.
                if is_over && ctx.state(|workflow| workflow.progress.phase == Phase::Dropping) {
                    continue;
                }
                return Ok(ctx.state(|workflow| workflow.progress.status()));
            }
        }
    }

    /// A copy ended.
    #[signal(name = "copy_ended")]
    pub fn copy_ended(&mut self, _ctx: &mut SyncWorkflowContext<Self>, ended: CopyEnded) {
        self.progress.copy_ended(&ended);
    }

    /// A stream ended.
    #[signal(name = "stream_ended")]
    pub fn stream_ended(&mut self, _ctx: &mut SyncWorkflowContext<Self>, ended: StreamEnded) {
        self.progress.stream_ended(ended);
    }

    /// Something changed in the catalog, such as the state of a table.
    #[signal(name = "catalog_changed")]
    pub fn catalog_changed(&mut self, _ctx: &mut SyncWorkflowContext<Self>) {
        self.progress.stale = true;
    }

    /// How the mirror is, for Temporal's UI. Nothing depends on it.
    #[signal(name = "figures")]
    pub fn figures(&mut self, ctx: &mut SyncWorkflowContext<Self>, figures: Figures) {
        if figures.is_indexed {
            let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            ctx.upsert_search_attributes([
                ids::MIRROR_VERDICT.value_set(figures.verdict.clone()),
                ids::MIRROR_ROWS_COPIED.value_set(number(figures.rows_copied)),
                ids::MIRROR_LAG_SECONDS.value_set(number(figures.lag_s.unwrap_or_default())),
            ]);
        }
        self.progress.figures = Some(figures);
        ctx.set_current_details(self.progress.details());
    }

    /// Where the mirror stands.
    #[query(name = "status")]
    pub fn status(&self, _view: &WorkflowContextView) -> MirrorStatus {
        self.progress.status()
    }

    /// The children that it takes for alive.
    #[query(name = "children")]
    pub fn children(&self, _view: &WorkflowContextView) -> Children {
        self.progress.children(&self.mirror)
    }

    #[update_validator(pause)]
    fn may_pause(&self, _view: &WorkflowContextView, _input: &()) -> Result<(), Refusal> {
        Ok(self.progress.phase.after(Event::Pause).map(drop)?)
    }

    /// Stops streams and copies where they are, and answers when they stand still.
    #[update(name = "pause")]
    pub async fn pause(ctx: &mut WorkflowContext<Self>, _input: ()) -> Result<MirrorStatus, Refusal> {
        ctx.state_mut(|workflow| {
            workflow.resyncing_needed.cancel_with_reason("the mirror pauses");
            // Tables that join and leave must not hold it up: they do so afterwards.
            workflow.preparing.cancel_with_reason("the mirror pauses");
            workflow.progress.apply(Event::Pause)
        })?;
        ctx.wait_condition(|workflow| {
            let progress = &workflow.progress;
            progress.phase != Phase::Paused || (progress.is_quiet() && progress.is_recorded())
        })
        .await?;
        Ok(ctx.state(|workflow| workflow.progress.status()))
    }

    #[update_validator(resume)]
    fn may_resume(&self, _view: &WorkflowContextView, _input: &()) -> Result<(), Refusal> {
        Ok(self.progress.phase.after(Event::Resume).map(drop)?)
    }

    /// Goes on from the position; after a failure, prepares source and destination again. Answers
    /// when everybody can see that it goes on, which is before anything is copied or streamed.
    #[update(name = "resume")]
    pub async fn resume(ctx: &mut WorkflowContext<Self>, _input: ()) -> Result<MirrorStatus, Refusal> {
        ctx.state_mut(|workflow| workflow.progress.apply(Event::Resume))?;
        ctx.wait_condition(|workflow| {
            workflow.progress.is_recorded() || workflow.progress.phase == Phase::Dropping
        })
        .await?;
        Ok(ctx.state(|workflow| workflow.progress.status()))
    }

    #[update_validator(resync)]
    fn may_resync(&self, _view: &WorkflowContextView, _input: &ResyncInput) -> Result<(), Refusal> {
        Ok(self.progress.phase.after(Event::Resync).map(drop)?)
    }

    /// Has tables copied again, and answers when everybody can see that they are due.
    #[update(name = "resync")]
    pub async fn resync(
        ctx: &mut WorkflowContext<Self>,
        input: ResyncInput,
    ) -> Result<MirrorStatus, Refusal> {
        // One at a time: one that drops a destination table must not meet another that has made it anew.
        ctx.wait_condition(|workflow| !workflow.progress.resyncing).await?;
        let token = ctx.state_mut(|workflow| {
            workflow.progress.resyncing = true;
            workflow.resyncing.clone()
        });
        let options = options::resync("tables are to be copied again", &token);
        let begun = ctx.execute_activity(MirrorActivities::begin_resync, input, options).await;
        // Also after a failure: some of the tables may have come into another state, or still need a copy.
        ctx.state_mut(|workflow| {
            workflow.progress.resyncing = false;
            workflow.progress.stale = true;
        });
        match begun.map_err(|error| failure::of_activity(&error)) {
            Ok(()) => {}
            Err(Ended::Failed(error)) => return Err(error.into()),
            Err(Ended::Stopped | Ended::Unstaffed) => {
                return Err(
                    Error::new(millrace_terms::Code::MirrorState, "the mirror is being dropped").into()
                );
            }
        }
        ctx.wait_condition(|workflow| {
            workflow.progress.is_recorded() || workflow.progress.phase == Phase::Dropping
        })
        .await?;
        Ok(ctx.state(|workflow| workflow.progress.status()))
    }

    #[update_validator(edit)]
    fn may_edit(&self, _view: &WorkflowContextView, _input: &()) -> Result<(), Refusal> {
        Ok(self.progress.phase.after(Event::Edit).map(drop)?)
    }

    /// Looks into the catalog for what a user changed there, and answers when it is done: tables joined
    /// and left, and no copy runs of one that was stopped.
    #[update(name = "edit")]
    pub async fn edit(ctx: &mut WorkflowContext<Self>, _input: ()) -> Result<MirrorStatus, Refusal> {
        ctx.state_mut(|workflow| workflow.progress.stale = true);
        ctx.wait_condition(|workflow| workflow.progress.is_settled()).await?;
        Ok(ctx.state(|workflow| workflow.progress.status()))
    }

    #[update_validator(drop_mirror)]
    fn may_drop(&self, _view: &WorkflowContextView, _options: &DropOptions) -> Result<(), Refusal> {
        Ok(self.progress.phase.after(Event::Drop).map(drop)?)
    }

    /// Hands the mirror over to the workflow that drops it, and answers that one's id.
    #[update(name = "drop")]
    pub fn drop_mirror(
        &mut self,
        _ctx: &mut SyncWorkflowContext<Self>,
        options: DropOptions,
    ) -> Result<String, Refusal> {
        self.progress.apply(Event::Drop)?;
        self.progress.drop.get_or_insert(options);
        self.preparing.cancel_with_reason("the mirror is dropped");
        self.resyncing.cancel_with_reason("the mirror is dropped");
        self.resyncing_needed.cancel_with_reason("the mirror is dropped");
        Ok(ids::drop(&self.mirror))
    }
}

type Context = WorkflowContext<MirrorWorkflow>;

async fn perform(ctx: &Context, step: Step) -> WorkflowResult<Flow> {
    match step {
        Step::Record => record(ctx).await?,
        Step::Prepare => prepare(ctx).await?,
        Step::StartStreams(streams) => start_streams(ctx, streams).await,
        Step::StartCopies(shares) => start_copies(ctx, shares).await,
        Step::Resync => resync_needed(ctx).await?,
        Step::Stop => stop(ctx).await,
        Step::StopCopies(tables) => stop_copies(ctx, &tables).await,
        Step::Edit => edit_tables(ctx).await,
        Step::Release => release(ctx).await?,
        Step::Complete => change(ctx, |progress| {
            // Only Running completes, and only there this step is decided.
            if let Err(error) = progress.apply(Event::Complete) {
                progress.fail(error);
            }
        }),
        Step::Drop => {
            hand_over(ctx).await?;
            return Ok(Flow::End);
        }
        Step::Finish => return Ok(Flow::End),
        Step::Wait => ctx.wait_condition(|workflow| workflow.progress.next() != Step::Wait).await?,
    }
    Ok(Flow::GoOn)
}

fn change(ctx: &Context, how: impl FnOnce(&mut Progress)) {
    ctx.state_mut(|workflow| how(&mut workflow.progress));
}

fn name(ctx: &Context) -> String {
    ctx.state(|workflow| workflow.mirror.clone())
}

/// Tells the catalog and asks it. What is signalled meanwhile makes the answer stale again.
async fn record(ctx: &Context) -> WorkflowResult<()> {
    let report = ctx.state_mut(|workflow| {
        workflow.progress.stale = false;
        workflow.progress.asking = true;
        workflow.progress.report(&workflow.mirror)
    });
    let phase = report.phase;
    let summary = format!("mirror is {phase}");
    match ctx.execute_activity(MirrorActivities::record_mirror, report, options::catalog(summary)).await {
        Ok(overview) => {
            let state = overview.state.clone();
            change(ctx, |progress| progress.recorded(phase, overview));
            if ctx.search_attributes().get(&ids::MIRROR_STATE).as_ref() != Some(&state) {
                ctx.upsert_search_attributes([ids::MIRROR_STATE.value_set(state)]);
            }
            ctx.set_current_details(ctx.state(|workflow| workflow.progress.details()));
            Ok(())
        }
        Err(error) => match failure::of_activity(&error) {
            Ended::Failed(error) => Err(failure::application(error).into()),
            Ended::Stopped | Ended::Unstaffed => Err(WorkflowTermination::cancelled()),
        },
    }
}

async fn prepare(ctx: &Context) -> WorkflowResult<()> {
    let token = ctx.cancellation_token().child_token();
    ctx.state_mut(|workflow| workflow.preparing = token.clone());
    let mirror = MirrorRef { mirror: name(ctx) };
    let input = ctx.state(|workflow| workflow.progress.prepare_source(&workflow.mirror));
    let source = options::prepare("publications and slots", &token);
    let mut done = ctx.execute_activity(MirrorActivities::prepare_source, input, source).await;
    if done.is_ok() {
        let destination = options::prepare("database and tables", &token);
        done = ctx.execute_activity(MirrorActivities::prepare_destination, mirror, destination).await;
    }
    match done.map_err(|error| failure::of_activity(&error)) {
        Ok(()) => change(ctx, |progress| {
            // A drop that came meanwhile stands.
            let _dropped = progress.apply(Event::Prepared);
        }),
        Err(Ended::Failed(error)) => change(ctx, |progress| progress.fail(error)),
        Err(_) if ctx.cancellation_token().is_cancelled() => return Err(WorkflowTermination::cancelled()),
        Err(_) => {}
    }
    Ok(())
}

/// Starts streams, all at once: one whose former run is still closing does not hold up the others.
async fn start_streams(ctx: &Context, streams: Vec<u32>) {
    workflows::join_all(streams.into_iter().map(|stream| start_stream(ctx, stream))).await;
}

async fn start_stream(ctx: &Context, stream: u32) {
    let mirror = name(ctx);
    let id = ids::stream(&mirror, stream);
    let options = children::options(&mirror, id, format!("changes of the mirror, stream {stream}"));
    let input = StreamRef { mirror, stream };
    let begin = || {
        change(ctx, |progress| {
            progress.streams.insert(stream, Child::Running);
        });
        is_kept(ctx)
    };
    if let Err(error) = children::start(ctx, || StreamWorkflow::run, input, options, begin).await {
        change(ctx, |progress| {
            progress.streams.remove(&stream);
            progress.fail(not_started(&error));
        });
    }
}

async fn start_copies(ctx: &Context, shares: Vec<(DueTable, u32)>) {
    let mirror = name(ctx);
    for (due, copiers) in shares {
        let id = ids::snapshot(&mirror, &due.table, due.copy_no);
        let summary = format!("copy {} of {}, {copiers} copiers", due.copy_no, due.table);
        let input = snapshot_input(&mirror, &due, copiers);
        let options = children::options(&mirror, id, summary);
        let begin = || {
            change(ctx, |progress| progress.copies_started(&due, copiers));
            is_kept(ctx)
        };
        if let Err(error) = children::start(ctx, || SnapshotWorkflow::run, input, options, begin).await {
            change(ctx, |progress| {
                progress.copies.remove(&due.id);
                progress.fail(not_started(&error));
            });
        }
    }
}

/// Whether the mirror is not to be dropped: that waits for nothing.
fn is_kept(ctx: &Context) -> bool {
    ctx.state(|workflow| workflow.progress.phase != Phase::Dropping)
}

fn not_started(error: &ChildWorkflowStartError) -> Error {
    Error::new(millrace_terms::Code::Internal, error.to_string())
}

/// Begins the resync of the tables that need one. A pause or a drop does not wait for it: what is left
/// of it is begun when the mirror goes on.
async fn resync_needed(ctx: &Context) -> WorkflowResult<()> {
    let token = ctx.cancellation_token().child_token();
    ctx.state_mut(|workflow| workflow.resyncing_needed = token.clone());
    let input = ResyncInput { mirror: name(ctx), which: Resync::Needed };
    let options = options::prepare("tables that must be copied again", &token);
    let begun = ctx.execute_activity(MirrorActivities::begin_resync, input, options).await;
    match begun.map_err(|error| failure::of_activity(&error)) {
        Ok(()) => change(ctx, |progress| progress.stale = true),
        Err(Ended::Failed(error)) => change(ctx, |progress| progress.fail(error)),
        Err(_) if ctx.cancellation_token().is_cancelled() => return Err(WorkflowTermination::cancelled()),
        Err(_) => {}
    }
    Ok(())
}

/// Tells every child that runs to stop. One that is not there has stopped.
async fn stop(ctx: &Context) {
    let mirror = name(ctx);
    let (streams, copies) = ctx.state(|workflow| {
        let progress = &workflow.progress;
        (progress.running_streams(), progress.copies.keys().copied().collect::<Vec<_>>())
    });
    for stream in streams {
        let told = children::cancel(ctx, ids::stream(&mirror, stream), STOP).await;
        change(ctx, |progress| match progress.streams.get_mut(&stream) {
            Some(child) if told => *child = Child::Stopping,
            Some(_) => drop(progress.streams.remove(&stream)),
            // Its own report came first.
            None => {}
        });
    }
    stop_copies(ctx, &copies).await;
}

/// Tells the copies of these tables to stop.
async fn stop_copies(ctx: &Context, tables: &[i64]) {
    let mirror = name(ctx);
    for id in tables {
        let copy = ctx.state(|workflow| workflow.progress.copies.get(id).cloned());
        let Some(copy) = copy.filter(|copy| !copy.stopping) else { continue };
        let told = children::cancel(ctx, ids::snapshot(&mirror, &copy.table, copy.copy_no), STOP).await;
        change(ctx, |progress| match progress.copies.get_mut(id) {
            Some(running) if told => running.stopping = true,
            Some(_) => {
                progress.copies.remove(id);
                progress.stale = true;
            }
            None => {}
        });
    }
}

/// Has tables join and leave. What cannot be done now stays in the catalog, for the next look at it.
async fn edit_tables(ctx: &Context) {
    let token = ctx.state_mut(|workflow| {
        workflow.preparing = ctx.cancellation_token().child_token();
        workflow.preparing.clone()
    });
    let mirror = MirrorRef { mirror: name(ctx) };
    let options = options::edit("tables join and leave", &token);
    let done = ctx.execute_activity(MirrorActivities::edit_tables, mirror, options).await;
    change(ctx, |progress| match done {
        Ok(()) => progress.stale = true,
        Err(_) => progress.overview.edits = 0,
    });
}

/// Removes slots and publications of a mirror that only copies: a slot that nobody reads fills the
/// source's disk.
async fn release(ctx: &Context) -> WorkflowResult<()> {
    let options = options::prepare("slots and publications", &ctx.cancellation_token());
    let done =
        ctx.execute_activity(DropActivities::drop_source, MirrorRef { mirror: name(ctx) }, options).await;
    match done.map_err(|error| failure::of_activity(&error)) {
        Ok(_) => change(ctx, |progress| progress.released = true),
        Err(Ended::Failed(error)) => return Err(failure::application(error).into()),
        Err(_) => return Err(WorkflowTermination::cancelled()),
    }
    Ok(())
}

async fn hand_over(ctx: &Context) -> WorkflowResult<()> {
    let mirror = name(ctx);
    let input = ctx.state(|workflow| DropInput {
        mirror: workflow.mirror.clone(),
        options: workflow.progress.drop.unwrap_or_default(),
    });
    let options = children::options(&mirror, ids::drop(&mirror), "drop the mirror".to_owned());
    Ok(children::start(ctx, || DropMirrorWorkflow::run, input, options, || true).await?)
}
