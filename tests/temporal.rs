//! What a user sees in Temporal: the mirror's workflows by search attribute, readable ids, a summary,
//! and no payload that holds a password or a row.

use futures::StreamExt;
use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror};
use millrace_workflows::payload::CheckInput;
use millrace_workflows::{CheckWorkflow, MirrorWorkflow, ids};
use temporalio_client::{
    UntypedWorkflow, WorkflowDescribeOptions, WorkflowSignalOptions, WorkflowStartOptions,
    WorkflowTerminateOptions,
};

use crate::support::bed::{Bed, SOON};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test(
            "temporal::workflows_are_readable_and_hold_no_secret",
            workflows_are_readable_and_hold_no_secret,
        ),
        test("temporal::what_is_still_closing_is_waited_for", what_is_still_closing_is_waited_for),
        test("temporal::a_long_history_is_continued_as_new", a_long_history_is_continued_as_new),
        test("temporal::a_name_is_free_when_its_mirror_is_gone", a_name_is_free_when_its_mirror_is_gone),
    ]
}

/// In every row, to be looked for in the histories.
const ROW_MARKER: &str = "row-marker-7f3a";

async fn workflows_are_readable_and_hold_no_secret(bed: Bed) {
    bed.sql(&format!("create table t (id int primary key, v text); insert into t select i, '{ROW_MARKER}' || i from generate_series(1, 100) i")).await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("update t set v = v || '!'").await;
    bed.wait_equal("t", "t").await;

    let client = stack::temporal().await;
    let query = format!("MirrorName=\"{}\"", bed.name);
    let ids = wait::until("the mirror's workflows", SOON, || async {
        let mut found = Vec::new();
        let mut listed = client.list_workflows(query.clone(), Default::default());
        while let Some(workflow) = listed.next().await {
            found.push(workflow.map_err(|error| error.to_string())?.id().to_owned());
        }
        found.sort();
        if found.len() >= 3 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    for expected in [
        format!("mirror/{}", bed.name),
        format!("stream/{}/0", bed.name),
        format!("snapshot/{}/public.t/", bed.name),
    ] {
        assert!(ids.iter().any(|id| id.starts_with(&expected)), "{expected} in {ids:?}");
    }

    let password = stack::endpoints().source.split(['@', ':']).nth(2).expect("a password").to_owned();
    assert!(password.len() >= 8, "a password that can be looked for");
    let ours = client.list_workflows(String::new(), Default::default());
    let mut all = std::pin::pin!(ours);
    let mut histories = 0;
    while let Some(workflow) = all.next().await {
        let workflow = workflow.expect("a workflow");
        let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow.id());
        let mut history = handle.fetch_history(Default::default());
        while let Some(event) = history.next().await {
            let text = format!("{:?}", event.expect("an event"));
            for secret in [password.as_str(), ROW_MARKER] {
                let found = text.contains(secret) || text.contains(&debug_bytes(secret));
                assert!(!found, "{} holds {secret}: {text}", workflow.id());
            }
        }
        histories += 1;
    }
    assert!(histories >= 3);
}

/// A workflow that has reported its end holds its id until it has closed.
async fn what_is_still_closing_is_waited_for(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    let client = stack::temporal().await;
    // In the stead of the stream's former run: nobody carries it out, so it stays until it is ended.
    let options = WorkflowStartOptions::new("nobody", ids::stream(&bed.name, 0)).build();
    let input = CheckInput { draft: String::new() };
    let closing = client.start_workflow(CheckWorkflow::run, input, options).await.expect("a workflow");

    bed.create(bed.mirror(&["public.t"])).await.expect("a mirror");
    wait::until("an attempt to start the stream", SOON, || async {
        let handle = client.get_workflow_handle::<UntypedWorkflow>(ids::mirror(&bed.name));
        let mut history = handle.fetch_history(Default::default());
        while let Some(event) = history.next().await {
            let event = event.map_err(|error| error.to_string())?;
            if format!("{event:?}").contains("StartChildWorkflowExecutionFailed") {
                return Ok(());
            }
        }
        Err("none yet".to_owned())
    })
    .await;
    closing.terminate(WorkflowTerminateOptions::default()).await.expect("its end");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("insert into t values (2)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
}

/// Events after which the server suggests to go on in a new run (`limit.historyCount.suggestContinueAsNew`).
const LONG_HISTORY: usize = 4_096;

/// The mirror's workflow goes on in another run, and finds its stream, and whoever asks it for something.
async fn a_long_history_is_continued_as_new(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    let asked = bed.mirror(&["public.t"]);
    let request_id = uuid::Uuid::new_v4().to_string();
    let create = |mirror: &api::Mirror| api::CreateMirrorRequest {
        mirror: Some(mirror.clone()),
        request_id: request_id.clone(),
        ..Default::default()
    };
    bed.mirrors().create_mirror(create(&asked)).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    let client = stack::temporal().await;
    let run = async |id: String| {
        let handle = client.get_workflow_handle::<UntypedWorkflow>(id);
        handle.describe(WorkflowDescribeOptions::default()).await.expect("a workflow").run_id().to_owned()
    };
    let (mirror, stream) = (ids::mirror(&bed.name), ids::stream(&bed.name, 0));
    let (first, streaming) = (run(mirror.clone()).await, run(stream.clone()).await);
    let handle = client.get_workflow_handle::<MirrorWorkflow>(mirror.clone());
    let signals = (0..LONG_HISTORY)
        .map(|_| handle.signal(MirrorWorkflow::catalog_changed, (), WorkflowSignalOptions::default()));
    futures::stream::iter(signals)
        .buffer_unordered(32)
        .for_each(|told| async { told.expect("a signal") })
        .await;
    wait::until("another run", SOON, || async {
        let now = run(mirror.clone()).await;
        if now == first { Err(now) } else { Ok(()) }
    })
    .await;
    assert_eq!(run(stream).await, streaming, "the stream goes on");
    bed.mirrors().create_mirror(create(&asked)).await.expect("the same mirror");
    bed.sql("insert into t values (2)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);

    let request = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(request).await.expect("it pauses");
    let request = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(request).await.expect("it goes on");
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    bed.sql("insert into t values (3)").await;
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("t", "t").await, 3);
}

async fn a_name_is_free_when_its_mirror_is_gone(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    for _ in 0..3 {
        bed.mirror_streaming(&["public.t"]).await;
        let request =
            api::DeleteMirrorRequest { name: bed.name.clone(), drop_destination: true, ..Default::default() };
        let dropped = bed.mirrors().delete_mirror(request).await.expect("a drop").into_inner();
        assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    }
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("insert into t values (2)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
}

/// How `Debug` prints the text as a vector of bytes.
fn debug_bytes(text: &str) -> String {
    text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ")
}
