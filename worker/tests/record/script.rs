//! Activities that play a script: what the catalog and the peers would do, without them.

#![allow(dead_code, reason = "the macro makes constants by which activities could be called")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_terms::{Code, Error, Lsn};
use millrace_workflows::contract;
use millrace_workflows::failure;
use millrace_workflows::payload::{
    CheckInput, Comparer, ComparerReport, Copier, CopierReport, CopyFailure, CopyPlan, CopyResult,
    DropReport, DropScope, DueTable, HousekeepingReport, Leftover, MirrorRef, MirrorReport, Note, Overview,
    Resync, ResyncInput, SourceInput, StreamEnd, StreamRef, TableCopy, TableCounts, VerifyEnd, VerifyPlan,
    VerifyRef, VerifyReport, WorkflowIds,
};
use millrace_workflows::phase::Phase;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

/// What one mirror does.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Its tables, by id.
    pub tables: BTreeMap<i64, Table>,
    /// Number of its streams; 0 stands for 1.
    pub streams: u32,
    /// Whether it only copies.
    pub copy_only: bool,
    /// What its stream fails with, once.
    pub stream_failure: Option<Error>,
    /// What cleaning up its source always fails with.
    pub source_failure: Option<Error>,
    /// What preparing its source always fails with; the mirror hangs in SETUP.
    pub prepare_failure: Option<Error>,
}

/// One table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// PENDING, STREAMING or ERROR.
    pub state: &'static str,
    /// What copying it fails with.
    pub copy_failure: Option<Error>,
    /// Its first copy goes on until it is told to stop.
    pub endless: bool,
    /// Whether it is to join the mirror.
    pub joins: bool,
    /// Number of its copy, from 0.
    pub copy_no: u32,
}

impl Table {
    /// A table to be copied.
    pub fn new() -> Self {
        Self { state: "PENDING", ..Self::default() }
    }
}

/// The scripts of all mirrors, by the first word of their names.
#[derive(Clone, Default)]
pub struct Scripted {
    scripts: Arc<Mutex<BTreeMap<String, Script>>>,
}

impl Scripted {
    /// Sets a mirror's script.
    pub fn play(&self, mirror: &str, script: Script) {
        self.scripts.lock().unwrap().insert(mirror.to_owned(), script);
    }

    /// Reads or changes a mirror's script.
    pub fn with<T>(&self, mirror: &str, read: impl FnOnce(&mut Script) -> T) -> T {
        read(self.scripts.lock().unwrap().entry(mirror.to_owned()).or_default())
    }
}

fn fail(error: Option<Error>) -> Result<(), ActivityError> {
    error.map_or(Ok(()), |error| Err(ActivityError::application(failure::application(error))))
}

/// Lives until it is cancelled.
async fn until_cancelled(ctx: &ActivityContext) -> Result<std::convert::Infallible, ActivityError> {
    loop {
        tokio::select! {
            () = ctx.cancelled() => return Err(ActivityError::cancelled()),
            () = tokio::time::sleep(Duration::from_millis(200)) => ctx.record_heartbeat(()).await?,
        }
    }
}

#[activities]
impl Scripted {
    #[activity(definition = contract::RecordMirror)]
    pub async fn record_mirror(
        self: Arc<Self>,
        _ctx: ActivityContext,
        report: MirrorReport,
    ) -> Result<Overview, ActivityError> {
        Ok(self.with(&report.mirror, |script| {
            let count = |state| script.tables.values().filter(|table| table.state == state).count() as u32;
            let due = script.tables.iter().filter(|(id, table)| {
                table.state == "PENDING" && !table.joins && !report.copying.contains(id)
            });
            let is_over = |id: &&i64| script.tables.get(id).is_none_or(|table| table.state == "PAUSED");
            let state = match report.phase {
                Phase::Running if count("PENDING") > 0 => "SNAPSHOT".to_owned(),
                Phase::Running if count("ERROR") > 0 => "DEGRADED".to_owned(),
                phase => phase.to_string(),
            };
            Overview {
                state,
                tables: TableCounts {
                    total: script.tables.len() as u32,
                    pending: count("PENDING"),
                    streaming: count("STREAMING"),
                    error: count("ERROR"),
                    ..TableCounts::default()
                },
                due: due
                    .map(|(id, table)| DueTable {
                        id: *id,
                        table: format!("public.t{id}"),
                        copy_no: 1 + table.copy_no,
                        bytes: 1 << 20,
                    })
                    .take(2)
                    .collect(),
                streams: (0..script.streams.max(1)).collect(),
                parallel_tables: 2,
                parallel_partitions: 4,
                resync_needed: false,
                over: report.copying.iter().filter(is_over).copied().collect(),
                edits: script.tables.values().filter(|table| table.joins).count() as u32,
                complete: script.copy_only && count("PENDING") == 0,
            }
        }))
    }

    #[activity(definition = contract::PrepareSource)]
    pub async fn prepare_source(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: SourceInput,
    ) -> Result<(), ActivityError> {
        // As by the policy `error`: a stream begins anew when a person asks for it.
        fail(input.recovery.filter(|recovery| !recovery.asked).map(|recovery| recovery.error))?;
        fail(self.with(&input.mirror, |script| script.prepare_failure.clone()))
    }

    #[activity(definition = contract::PrepareDestination)]
    pub async fn prepare_destination(_ctx: ActivityContext, _mirror: MirrorRef) -> Result<(), ActivityError> {
        Ok(())
    }

    #[activity(definition = contract::BeginResync)]
    pub async fn begin_resync(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: ResyncInput,
    ) -> Result<(), ActivityError> {
        self.with(&input.mirror, |script| {
            for (id, table) in &mut script.tables {
                let is_asked = match input.which {
                    Resync::All => true,
                    Resync::Table(table) => table == *id,
                    Resync::Needed => false,
                };
                if is_asked {
                    *table = Table { copy_no: table.copy_no + 1, ..Table::new() };
                }
            }
        });
        Ok(())
    }

    #[activity(definition = contract::EditTables)]
    pub async fn edit_tables(
        self: Arc<Self>,
        _ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<(), ActivityError> {
        self.with(&mirror.mirror, |script| {
            script.tables.values_mut().for_each(|table| table.joins = false);
            Ok(())
        })
    }

    #[activity(definition = contract::NoteEvent)]
    pub async fn note_event(_ctx: ActivityContext, _note: Note) -> Result<(), ActivityError> {
        Ok(())
    }

    #[activity(definition = contract::TakeEpoch)]
    pub async fn take_epoch(_ctx: ActivityContext, _copy: TableCopy) -> Result<Lsn, ActivityError> {
        Ok(Lsn(0x1_0000_0000))
    }

    #[activity(definition = contract::PlanPartitions)]
    pub async fn plan_partitions(_ctx: ActivityContext, _copy: TableCopy) -> Result<CopyPlan, ActivityError> {
        Ok(CopyPlan { partitions: 8, bytes: 1 << 20 })
    }

    #[activity(definition = contract::CopyPartitions)]
    pub async fn copy_partitions(
        self: Arc<Self>,
        ctx: ActivityContext,
        copier: Copier,
    ) -> Result<CopierReport, ActivityError> {
        let (failure, endless) = self.with(&copier.copy.mirror, |script| {
            script
                .tables
                .get(&copier.copy.table_id)
                .map(|table| (table.copy_failure.clone(), table.endless))
                .unwrap_or_default()
        });
        if endless {
            let stopped = until_cancelled(&ctx).await;
            self.with(&copier.copy.mirror, |script| {
                if let Some(table) = script.tables.get_mut(&copier.copy.table_id) {
                    table.endless = false;
                }
            });
            match stopped? {}
        }
        fail(failure)?;
        Ok(CopierReport { partitions: 4, rows: 1000 })
    }

    #[activity(definition = contract::FinishCopy)]
    pub async fn finish_copy(
        self: Arc<Self>,
        _ctx: ActivityContext,
        copy: TableCopy,
    ) -> Result<CopyResult, ActivityError> {
        self.with(&copy.mirror, |script| {
            if let Some(table) = script.tables.get_mut(&copy.table_id) {
                table.state = "STREAMING";
            }
        });
        Ok(CopyResult { rows: 2000 })
    }

    #[activity(definition = contract::FailCopy)]
    pub async fn fail_copy(
        self: Arc<Self>,
        _ctx: ActivityContext,
        failure: CopyFailure,
    ) -> Result<(), ActivityError> {
        self.with(&failure.copy.mirror, |script| {
            if let Some(table) = script.tables.get_mut(&failure.copy.table_id) {
                table.state = "ERROR";
            }
        });
        Ok(())
    }

    #[activity(definition = contract::Stream)]
    pub async fn stream(
        self: Arc<Self>,
        ctx: ActivityContext,
        stream: StreamRef,
    ) -> Result<StreamEnd, ActivityError> {
        fail(self.with(&stream.mirror, |script| script.stream_failure.take()))?;
        match until_cancelled(&ctx).await? {}
    }

    #[activity(definition = contract::BeginDrop)]
    pub async fn begin_drop(
        self: Arc<Self>,
        _ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<DropScope, ActivityError> {
        let streams = self.with(&mirror.mirror, |script| (0..script.streams.max(1)).collect());
        let source_objects = vec!["replication slot s".to_owned(), "publication p".to_owned()];
        Ok(DropScope { streams, source_objects, ..DropScope::default() })
    }

    #[activity(definition = contract::DropSource)]
    pub async fn drop_source(
        self: Arc<Self>,
        _ctx: ActivityContext,
        mirror: MirrorRef,
    ) -> Result<Vec<Leftover>, ActivityError> {
        fail(self.with(&mirror.mirror, |script| script.source_failure.clone()))?;
        Ok(Vec::new())
    }

    #[activity(definition = contract::DropDestination)]
    pub async fn drop_destination(
        _ctx: ActivityContext,
        _mirror: MirrorRef,
    ) -> Result<Vec<Leftover>, ActivityError> {
        let error = Error::new(Code::DestinationPermission, "table t1: DROP is not granted");
        Ok(vec![Leftover { object: "table shop.t1".to_owned(), error }])
    }

    #[activity(definition = contract::AwaitClosed)]
    pub async fn await_closed(_ctx: ActivityContext, _workflows: WorkflowIds) -> Result<(), ActivityError> {
        Ok(())
    }

    #[activity(definition = contract::ForgetMirror)]
    pub async fn forget_mirror(_ctx: ActivityContext, _report: DropReport) -> Result<(), ActivityError> {
        Ok(())
    }

    #[activity(definition = contract::Check)]
    pub async fn check(_ctx: ActivityContext, _input: CheckInput) -> Result<(), ActivityError> {
        Ok(())
    }

    #[activity(definition = contract::Housekeep)]
    pub async fn housekeep(_ctx: ActivityContext) -> Result<HousekeepingReport, ActivityError> {
        Ok(HousekeepingReport { streams: 1, unreachable: 0, expired: 0 })
    }

    #[activity(definition = contract::PlanVerification)]
    pub async fn plan_verification(
        _ctx: ActivityContext,
        _verify: VerifyRef,
    ) -> Result<VerifyPlan, ActivityError> {
        Ok(VerifyPlan { tables: 2, skipped: 1, ranges: 30 })
    }

    #[activity(definition = contract::CompareRanges)]
    pub async fn compare_ranges(
        ctx: ActivityContext,
        comparer: Comparer,
    ) -> Result<ComparerReport, ActivityError> {
        if comparer.verify.mirror.starts_with("endless") {
            match until_cancelled(&ctx).await? {}
        }
        Ok(ComparerReport { ranges: 15 })
    }

    #[activity(definition = contract::EndVerification)]
    pub async fn end_verification(
        _ctx: ActivityContext,
        _end: VerifyEnd,
    ) -> Result<VerifyReport, ActivityError> {
        Ok(VerifyReport { rows: 1000, ..VerifyReport::default() })
    }
}
