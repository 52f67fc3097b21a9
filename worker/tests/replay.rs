//! The workflows as they are now replay the histories that earlier ones recorded. A failure here
//! means that running mirrors would stop at the next release: see `workflows/histories/README.md`.

#![allow(clippy::unwrap_used, clippy::panic)] // that is how tests fail

use std::path::Path;

use millrace_workflows::{
    CheckWorkflow, DropMirrorWorkflow, HousekeepingWorkflow, MirrorWorkflow, SnapshotWorkflow,
    StreamWorkflow, VerifyWorkflow,
};
use temporalio_client::WorkflowHistory;
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};

fn replayer() -> WorkflowReplayer {
    let options = WorkflowReplayerOptions::new()
        // Workflows derive the other queues' names from their own.
        .task_queue("millrace-control")
        .register_workflow::<MirrorWorkflow>()
        .and_then(|options| options.register_workflow::<StreamWorkflow>())
        .and_then(|options| options.register_workflow::<SnapshotWorkflow>())
        .and_then(|options| options.register_workflow::<DropMirrorWorkflow>())
        .and_then(|options| options.register_workflow::<CheckWorkflow>())
        .and_then(|options| options.register_workflow::<HousekeepingWorkflow>())
        .and_then(|options| options.register_workflow::<VerifyWorkflow>())
        .unwrap();
    WorkflowReplayer::new(options.build()).unwrap()
}

#[tokio::test]
async fn every_recorded_history_replays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflows/histories");
    let replayer = replayer();
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let history = WorkflowHistory::from_json(&std::fs::read(&path).unwrap()).unwrap();
            replayer
                .replay_workflow(history)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            replayed += 1;
        }
    }
    assert!(replayed >= 7, "only {replayed} histories in {}", folder.display());
}
