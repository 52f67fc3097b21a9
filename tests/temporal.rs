//! What a user sees in Temporal: the mirror's workflows by search attribute, readable ids, a summary,
//! and no payload that holds a password or a row.

use futures::StreamExt;
use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror};
use millrace_workflows::payload::CheckInput;
use millrace_workflows::{CheckWorkflow, ids};
use temporalio_client::{UntypedWorkflow, WorkflowStartOptions, WorkflowTerminateOptions};

use crate::support::bed::{Bed, SOON};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test(
            "temporal::workflows_are_readable_and_hold_no_secret",
            workflows_are_readable_and_hold_no_secret,
        ),
        test("temporal::what_is_still_closing_is_waited_for", what_is_still_closing_is_waited_for),
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
