//! The mirror's phase into the catalog, and what is due out of it.

#![expect(
    dead_code,
    reason = "the macro makes a constant for each activity, to start it by; workflows use the contract's"
)]

use std::sync::Arc;

use millrace_catalog::events::{NewEvent, Severity};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::spec::Mode;
use millrace_catalog::state::{Desired, TableState};
use millrace_terms::{EventCode, Result};
use millrace_workflows::contract;
use millrace_workflows::payload::{DueTable, MirrorReport, Note, Overview, TableCounts};
use millrace_workflows::phase::Phase;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::environment::Environment;
use crate::failure;

pub(crate) struct Step(pub(crate) Arc<Environment>);

#[activities]
impl Step {
    #[activity(definition = contract::RecordMirror)]
    pub(crate) async fn record_mirror(
        self: Arc<Self>,
        _ctx: ActivityContext,
        report: MirrorReport,
    ) -> Result<Overview, ActivityError> {
        record(&self.0, &report).await.map_err(failure::of)
    }

    #[activity(definition = contract::NoteEvent)]
    pub(crate) async fn note_event(
        self: Arc<Self>,
        _ctx: ActivityContext,
        note: Note,
    ) -> Result<(), ActivityError> {
        let event = NewEvent::of_error(&note.mirror, Severity::Warning, &note.error);
        self.0.catalog.add_event(&event).await.map_err(failure::of)
    }
}

async fn record(environment: &Environment, report: &MirrorReport) -> Result<Overview> {
    let catalog = &environment.catalog;
    let before = catalog.get_mirror(&report.mirror).await?;
    write_phase(environment, report, &before).await?;
    let settings = &before.spec.settings.snapshot;
    let (mut due, mut over) = (Vec::new(), Vec::new());
    if report.phase == Phase::Running {
        if before.spec.mode == Mode::Stream {
            catalog.stream_without_copy(&report.mirror).await?;
        }
        due = catalog.claim_copies(&report.mirror, settings.parallel_tables).await?;
        let runs = |id: &i64| due.iter().any(|copy| copy.table_id == *id);
        over = report.copying.iter().copied().filter(|id| !runs(id)).collect();
    }
    let mirror = catalog.get_mirror(&report.mirror).await?;
    let tables = counts(&mirror);
    let edits = catalog.list_edits(&report.mirror).await?.len();
    let is_wanted = !catalog.wanted_resyncs(&report.mirror).await?.is_empty();
    Ok(Overview {
        state: mirror.state.to_string(),
        tables,
        streams: mirror.streams.iter().map(|stream| stream.n).collect(),
        due: due
            .into_iter()
            .filter(|copy| !report.copying.contains(&copy.table_id))
            .map(|copy| DueTable {
                id: copy.table_id,
                table: copy.source.to_string(),
                copy_no: copy.copy_no,
                bytes: copy.bytes_total,
            })
            .collect(),
        parallel_tables: settings.parallel_tables,
        parallel_partitions: settings.parallel_partitions,
        resync_needed: is_wanted && report.phase == Phase::Running && !report.resyncing,
        over,
        edits: u32::try_from(edits).unwrap_or(u32::MAX),
        complete: mirror.spec.mode == Mode::Snapshot
            && !is_wanted
            && tables.pending + tables.copying + tables.error + tables.paused == 0
            && edits == 0,
    })
}

async fn write_phase(environment: &Environment, report: &MirrorReport, before: &Mirror) -> Result<()> {
    let catalog = &environment.catalog;
    let name = report.mirror.as_str();
    match report.phase {
        Phase::Running => catalog.mark_prepared(name).await?,
        Phase::Completed => {
            if before.completed_at.is_none() {
                let text = "everything is copied, and the mirror does no more";
                catalog.add_event(&NewEvent::info(name, EventCode::MirrorCompleted, text)).await?;
            }
            catalog.mark_completed(name).await?;
        }
        _ => {}
    }
    let desired = match report.phase {
        Phase::Paused => Desired::Paused,
        Phase::Dropping => Desired::Dropping,
        _ => Desired::Running,
    };
    if before.desired != desired {
        // Before it is so: of two attempts the second tells it again rather than none.
        match (before.desired, desired) {
            (_, Desired::Paused) => {
                let event = NewEvent::info(name, EventCode::MirrorPaused, "the mirror is paused");
                catalog.add_event(&event).await?;
            }
            (Desired::Paused, Desired::Running) => {
                let event = NewEvent::info(name, EventCode::MirrorResumed, "the mirror goes on");
                catalog.add_event(&event).await?;
            }
            _ => {}
        }
        catalog.set_desired(name, desired, "").await?;
    }
    let stored = before.error.as_ref().map(|failure| failure.message.as_str());
    if stored != report.error.as_ref().map(|error| error.message()) {
        catalog.set_mirror_error(name, report.error.as_ref()).await?;
        if let Some(error) = &report.error {
            catalog.add_event(&NewEvent::of_error(name, Severity::Error, error)).await?;
        }
    }
    Ok(())
}

fn counts(mirror: &Mirror) -> TableCounts {
    let mut counts = TableCounts::default();
    for table in &mirror.tables {
        counts.total += 1;
        match table.state {
            TableState::Pending => counts.pending += 1,
            TableState::Copying | TableState::Resyncing => counts.copying += 1,
            TableState::Streaming => counts.streaming += 1,
            TableState::Paused => counts.paused += 1,
            TableState::Error => counts.error += 1,
            TableState::Dropped => counts.total -= 1,
        }
    }
    counts
}
