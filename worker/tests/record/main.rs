//! Records the histories that `replay.rs` replays: real runs of the workflows on a real Temporal
//! server, with activities that play a script instead of touching databases.
//!
//! Ignored, because it writes into the source tree: `workflows/histories/README.md` says how and
//! when to run it.

#![allow(clippy::unwrap_used, clippy::panic)] // that is how tests fail

mod script;

use std::path::Path;
use std::time::Duration;

use millrace_terms::{Code, Error};
use millrace_workflows::ids::{self, Queues};
use millrace_workflows::payload::{
    CheckInput, DropOptions, DropReport, Figures, MirrorInput, MirrorStatus, VerifyRef,
};
use millrace_workflows::phase::Phase;
use millrace_workflows::{
    CheckWorkflow, DropMirrorWorkflow, HousekeepingWorkflow, MirrorWorkflow, SnapshotWorkflow,
    StreamWorkflow, VerifyWorkflow,
};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, WorkflowExecuteUpdateOptions,
    WorkflowGetResultOptions, WorkflowHandle, WorkflowQueryOptions, WorkflowStartOptions,
};
use temporalio_common::UntypedWorkflow;
use temporalio_sdk::{Runtime, Worker, WorkerOptions};
use url::Url;

use script::{Script, Scripted, Table};

/// The replayer's queue names are those of an installation with the default prefix.
const PREFIX: &str = "millrace";

struct Stage {
    client: Client,
    scripted: Scripted,
    /// Makes every recording's names distinct, so that one server serves several.
    run: u32,
}

impl Stage {
    async fn start(&self, name: &str, script: Script) -> Actor<'_> {
        let mirror = format!("{name}-{}", self.run);
        self.scripted.play(&mirror, script);
        let options = WorkflowStartOptions::new(Queues::new(PREFIX).control(), ids::mirror(&mirror)).build();
        let input = MirrorInput::new(mirror.clone());
        self.client.start_workflow(MirrorWorkflow::run, input, options).await.unwrap();
        let handle = self.client.get_workflow_handle::<MirrorWorkflow>(ids::mirror(&mirror));
        Actor { stage: self, mirror, handle }
    }

    /// Writes the history of the newest run of the workflow.
    async fn record(&self, id: String, file: &str) {
        let handle = self.client.get_workflow_handle::<UntypedWorkflow>(id);
        let history = handle.fetch_history(Default::default()).to_json().await.unwrap();
        let history: serde_json::Value = serde_json::from_slice(&history).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflows/histories");
        std::fs::write(folder.join(format!("{file}.json")), format!("{history}\n")).unwrap();
    }
}

struct Actor<'a> {
    stage: &'a Stage,
    mirror: String,
    handle: WorkflowHandle<Client, MirrorWorkflow>,
}

impl Actor<'_> {
    async fn until(&self, what: &str, holds: impl Fn(&MirrorStatus) -> bool) -> MirrorStatus {
        let mut last = None;
        for _ in 0..300 {
            let status = self.handle.query(MirrorWorkflow::status, (), WorkflowQueryOptions::default()).await;
            match status {
                Ok(status) if holds(&status) => return status,
                other => last = Some(other),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{}: not {what} in 30 s: {last:?}", self.mirror);
    }

    async fn state(&self, state: &str) -> MirrorStatus {
        self.until(state, |status| status.overview.state == state).await
    }

    async fn pause(&self) -> Result<MirrorStatus, String> {
        let update =
            self.handle.execute_update(MirrorWorkflow::pause, (), WorkflowExecuteUpdateOptions::default());
        update.await.map_err(|error| format!("{error:?}"))
    }

    async fn edit(&self) -> MirrorStatus {
        let options = WorkflowExecuteUpdateOptions::default();
        self.handle.execute_update(MirrorWorkflow::edit, (), options).await.unwrap()
    }

    async fn resume(&self) -> MirrorStatus {
        let options = WorkflowExecuteUpdateOptions::default();
        self.handle.execute_update(MirrorWorkflow::resume, (), options).await.unwrap()
    }

    async fn drop(&self, destination_tables: bool) -> DropReport {
        let options = WorkflowExecuteUpdateOptions::default();
        let how = DropOptions { destination_tables, ..DropOptions::default() };
        let id = self.handle.execute_update(MirrorWorkflow::drop_mirror, how, options).await.unwrap();
        assert_eq!(id, ids::drop(&self.mirror));
        // The child is started after the update is answered.
        self.handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let handle = self.stage.client.get_workflow_handle::<DropMirrorWorkflow>(id);
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap()
    }

    async fn record(&self, id: String, file: &str) {
        self.stage.record(id, file).await;
    }
}

#[tokio::test]
#[ignore = "writes workflows/histories; see the README there"]
async fn record_histories() {
    let address = std::env::var("MILLRACE_TEMPORAL_ADDRESS").unwrap_or("http://127.0.0.1:7233".into());
    let options = ConnectionOptions::new(Url::parse(&address).unwrap()).identity("recorder").build();
    let connection = Connection::connect(options).await.unwrap();
    let client = Client::new(connection, ClientOptions::new("default").build()).unwrap();
    let runtime = Runtime::from_current_tokio(Default::default()).unwrap();
    let stage = Stage { client, scripted: Scripted::default(), run: std::process::id() };

    let queues = Queues::new(PREFIX);
    let mut workers: Vec<Worker> = [queues.control(), queues.snapshot(), queues.stream()]
        .into_iter()
        .map(|queue| {
            let mut options = WorkerOptions::new(queue).register_activities(stage.scripted.clone()).build();
            options.max_heartbeat_throttle_interval = Duration::from_millis(300);
            // Mirrors of a recording that failed may still be there.
            options.graceful_shutdown_period = Some(Duration::from_secs(1));
            // Every workflow task is a replay: what is not deterministic shows here.
            options.max_cached_workflows = 0;
            options.register_workflow::<MirrorWorkflow>().unwrap();
            options.register_workflow::<StreamWorkflow>().unwrap();
            options.register_workflow::<SnapshotWorkflow>().unwrap();
            options.register_workflow::<DropMirrorWorkflow>().unwrap();
            options.register_workflow::<CheckWorkflow>().unwrap();
            options.register_workflow::<HousekeepingWorkflow>().unwrap();
            options.register_workflow::<VerifyWorkflow>().unwrap();
            Worker::new(&runtime, stage.client.clone(), options).unwrap()
        })
        .collect();
    let stops: Vec<_> = workers.iter().map(Worker::shutdown_handle).collect();
    let play = async {
        tokio::join!(
            a_mirror_lives(&stage),
            a_mirror_fails_and_recovers(&stage),
            a_mirror_only_copies(&stage),
            a_mirror_is_dropped_in_setup(&stage),
            a_mirror_is_edited(&stage),
            a_mirror_has_several_streams(&stage),
            a_mirror_shows_its_figures(&stage),
            a_mirror_is_verified(&stage),
            others(&stage),
        );
        stops.iter().for_each(|stop| stop());
    };
    let work = futures::future::join_all(workers.iter_mut().map(Worker::run));
    let (done, ()) = tokio::join!(work, play);
    done.into_iter().for_each(|done| done.unwrap());
}

async fn a_mirror_lives(stage: &Stage) {
    let tables = [(1, Table::new()), (2, Table::new()), (3, Table { endless: true, ..Table::new() })];
    let mirror = stage.start("lives", Script { tables: tables.into(), ..Script::default() }).await;
    mirror.until("copying only t3", |status| status.copying == ["public.t3"]).await;

    let paused = mirror.pause().await.unwrap();
    assert_eq!((paused.phase, paused.streaming.len(), paused.copying.len()), (Phase::Paused, 0, 0));
    mirror.record(ids::snapshot(&mirror.mirror, "public.t3", 1), "snapshot-stopped").await;
    mirror.record(ids::stream(&mirror.mirror, 0), "stream-stopped").await;

    assert_eq!(mirror.resume().await.phase, Phase::Running);
    mirror.state("RUNNING").await;
    mirror.record(ids::snapshot(&mirror.mirror, "public.t1", 1), "snapshot-done").await;

    let report = mirror.drop(true).await;
    assert_eq!(report.leftovers.len(), 1);
    mirror.record(ids::mirror(&mirror.mirror), "mirror-lives").await;
    mirror.record(ids::drop(&mirror.mirror), "drop-with-tables").await;
}

async fn a_mirror_fails_and_recovers(stage: &Stage) {
    let bad = Table { copy_failure: Some(Error::new(Code::TableUnsupported, "column c")), ..Table::new() };
    let script = Script {
        tables: [(1, Table::new()), (2, bad)].into(),
        stream_failure: Some(Error::new(Code::SlotLost, "slot s is gone")),
        source_failure: Some(Error::new(Code::SourceUnreachable, "connection refused")),
        ..Script::default()
    };
    let mirror = stage.start("fails", script).await;
    let failed = mirror.state("FAILED").await;
    assert_eq!(failed.error.unwrap().code(), Code::SlotLost);
    mirror.record(ids::stream(&mirror.mirror, 0), "stream-failed").await;
    let refusal = mirror.pause().await.unwrap_err();
    assert!(refusal.contains("MIRROR_STATE: the mirror is FAILED: pause is not possible"), "{refusal}");

    mirror.resume().await;
    let degraded = mirror.state("DEGRADED").await;
    assert_eq!((degraded.overview.tables.streaming, degraded.overview.tables.error), (1, 1));
    mirror.record(ids::snapshot(&mirror.mirror, "public.t2", 1), "snapshot-failed").await;

    let report = mirror.drop(false).await;
    assert_eq!(report.leftovers[0].error.code(), Code::SourceUnreachable);
    mirror.record(ids::mirror(&mirror.mirror), "mirror-fails").await;
    mirror.record(ids::drop(&mirror.mirror), "drop-unreachable").await;
}

async fn a_mirror_only_copies(stage: &Stage) {
    let script = Script { tables: [(1, Table::new())].into(), copy_only: true, ..Script::default() };
    let mirror = stage.start("copies", script).await;
    let status = mirror.handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    assert_eq!(status.phase, Phase::Completed);
    mirror.record(ids::mirror(&mirror.mirror), "mirror-completes").await;
}

async fn a_mirror_is_dropped_in_setup(stage: &Stage) {
    let unreachable = Error::new(Code::SourceUnreachable, "connection refused");
    let script = Script { prepare_failure: Some(unreachable), ..Script::default() };
    let mirror = stage.start("setup", script).await;
    mirror.state("SETUP").await;
    assert_eq!(mirror.drop(false).await.leftovers, []);
    mirror.record(ids::mirror(&mirror.mirror), "mirror-dropped-in-setup").await;
}

async fn a_mirror_is_edited(stage: &Stage) {
    let tables = [(1, Table::new()), (2, Table { endless: true, ..Table::new() })];
    let mirror = stage.start("edited", Script { tables: tables.into(), ..Script::default() }).await;
    mirror.until("copying only t2", |status| status.copying == ["public.t2"]).await;
    // One pauses in the middle of its copy, another joins.
    stage.scripted.with(&mirror.mirror, |script| {
        script.tables.insert(3, Table { joins: true, ..Table::new() });
        script.tables.entry(2).and_modify(|table| table.state = "PAUSED");
    });
    let status = mirror.edit().await;
    assert_eq!((status.overview.edits, status.copying.contains(&"public.t2".to_owned())), (0, false));
    mirror.state("RUNNING").await;
    mirror.drop(false).await;
    mirror.record(ids::mirror(&mirror.mirror), "mirror-edited").await;
}

async fn a_mirror_has_several_streams(stage: &Stage) {
    let script = Script {
        tables: [(1, Table::new()), (2, Table::new())].into(),
        streams: 3,
        stream_failure: Some(Error::new(Code::SlotLost, "slot s is gone")),
        ..Script::default()
    };
    let mirror = stage.start("spread", script).await;
    let failed = mirror.state("FAILED").await;
    assert_eq!(failed.error.unwrap().code(), Code::SlotLost, "one of them is lost for good");
    mirror.resume().await;
    mirror.until("all three streams run", |status| status.streaming == [0, 1, 2]).await;
    mirror.state("RUNNING").await;
    assert!(mirror.pause().await.unwrap().streaming.is_empty());
    mirror.resume().await;
    mirror.until("all three streams run", |status| status.streaming == [0, 1, 2]).await;
    mirror.drop(false).await;
    mirror.record(ids::mirror(&mirror.mirror), "mirror-spread").await;
    mirror.record(ids::drop(&mirror.mirror), "drop-spread").await;
}

async fn a_mirror_shows_its_figures(stage: &Stage) {
    let script = Script { tables: [(1, Table::new())].into(), ..Script::default() };
    let mirror = stage.start("shown", script).await;
    mirror.state("RUNNING").await;
    for (verdict, is_indexed) in [("IDLE", false), ("HEALTHY", true)] {
        let figures =
            Figures { verdict: verdict.into(), tables: 1, tables_done: 1, is_indexed, ..Default::default() };
        mirror.handle.signal(MirrorWorkflow::figures, figures, Default::default()).await.unwrap();
        assert!(mirror.pause().await.unwrap().streaming.is_empty());
        mirror.resume().await;
    }
    mirror.drop(false).await;
    mirror.record(ids::mirror(&mirror.mirror), "mirror-shown").await;
}

async fn a_mirror_is_verified(stage: &Stage) {
    // The second one is told to stop.
    for (word, file) in [("verified", "verify-done"), ("endless", "verify-stopped")] {
        let verify = VerifyRef { mirror: format!("{word}-{}", stage.run), id: stage.run.to_string() };
        let id = ids::verify(&verify.mirror, &verify.id);
        let options = WorkflowStartOptions::new(Queues::new(PREFIX).control(), id.clone()).build();
        let handle = stage.client.start_workflow(VerifyWorkflow::run, verify, options).await.unwrap();
        if word == "endless" {
            // It has begun to compare when its history holds both comparers.
            tokio::time::sleep(Duration::from_secs(3)).await;
            handle.cancel(Default::default()).await.unwrap();
        }
        let ended = handle.get_result(WorkflowGetResultOptions::default()).await;
        assert_eq!(ended.is_ok(), word == "verified");
        stage.record(id, file).await;
    }
}

async fn others(stage: &Stage) {
    let control = Queues::new(PREFIX).control();
    let id = ids::check(&stage.run.to_string());
    let options = WorkflowStartOptions::new(control.clone(), id.clone()).build();
    let input = CheckInput { draft: stage.run.to_string() };
    let check = stage.client.start_workflow(CheckWorkflow::run, input, options).await.unwrap();
    check.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    stage.record(id, "check").await;

    let id = format!("housekeeping-{}", stage.run);
    let options = WorkflowStartOptions::new(control, id.clone()).build();
    let round = stage.client.start_workflow(HousekeepingWorkflow::run, (), options).await.unwrap();
    round.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    stage.record(id, "housekeeping").await;
}
