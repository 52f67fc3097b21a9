//! Workflows of streams and copies that somebody ends by force in Temporal: their mirrors find out, and go on.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use millrace_workflows::ids;
use temporalio_client::{
    UntypedWorkflow, WorkflowDescribeOptions, WorkflowExecutionStatus, WorkflowTerminateOptions,
};

use crate::support::bed::{Bed, SOON};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("terminated::a_stream_begins_again", a_stream_begins_again),
        test("terminated::a_mirror_pauses_and_goes_on", a_mirror_pauses_and_goes_on),
        test("terminated::a_copy_begins_again", a_copy_begins_again),
        test("terminated::a_mirror_is_dropped", a_mirror_is_dropped),
        test("terminated::a_mirror_itself_goes_on", a_mirror_itself_goes_on),
    ]
}

async fn terminate(workflow: String) {
    let handle = stack::temporal().await.get_workflow_handle::<UntypedWorkflow>(workflow);
    handle.terminate(WorkflowTerminateOptions::default()).await.expect("its end");
}

async fn wait_running(workflow: String) {
    let handle = stack::temporal().await.get_workflow_handle::<UntypedWorkflow>(workflow);
    wait::until("a workflow that runs", SOON, || async {
        let described = handle.describe(WorkflowDescribeOptions::default()).await;
        match described.map_err(|error| error.to_string())?.status() {
            WorkflowExecutionStatus::Running => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// A mirror of `t` whose second copy waits for an open transaction.
async fn mirror_copying(bed: &Bed) -> tokio_postgres::Client {
    bed.sql("create table t (id int primary key); insert into t select generate_series(1, 100)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let open = bed.session().await;
    open.batch_execute("begin; insert into t values (1000)").await.expect("an open transaction");
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    bed.wait_for("a copy that waits", |mirror| !mirror.tables[0].blocked_by.is_empty()).await;
    open
}

async fn a_stream_begins_again(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    for id in 2..4 {
        terminate(ids::stream(&bed.name, 0)).await;
        // The attempt that was its goes on for a moment, and must not be what writes the row.
        wait_running(ids::stream(&bed.name, 0)).await;
        bed.sql(&format!("insert into t values ({id})")).await;
        assert_eq!(bed.wait_equal("t", "t").await, id);
    }
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    assert!(events.iter().any(|event| event.message.contains("ended by force")), "{events:#?}");
}

async fn a_mirror_pauses_and_goes_on(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    terminate(ids::stream(&bed.name, 0)).await;
    let request = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let paused = bed.mirrors().pause_mirror(request).await.expect("it pauses").into_inner();
    assert_eq!(paused.state(), mirror::State::Paused);
    bed.sql("insert into t values (2)").await;
    let request = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(request).await.expect("it goes on");
    assert_eq!(bed.wait_equal("t", "t").await, 2);
}

async fn a_copy_begins_again(bed: Bed) {
    let open = mirror_copying(&bed).await;
    terminate(ids::snapshot(&bed.name, "public.t", 2)).await;
    open.batch_execute("commit").await.expect("its end");
    bed.wait_table("public.t", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("t", "t").await, 101);
}

async fn a_mirror_is_dropped(bed: Bed) {
    let open = mirror_copying(&bed).await;
    terminate(ids::snapshot(&bed.name, "public.t", 2)).await;
    terminate(ids::stream(&bed.name, 0)).await;
    let request = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let dropped = bed.mirrors().delete_mirror(request).await.expect("a drop").into_inner();
    assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    drop(open);
}

/// The server starts the workflow of a mirror that it finds in the catalog alone; what runs of it is found.
async fn a_mirror_itself_goes_on(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    terminate(ids::mirror(&bed.name)).await;
    let request = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(request).await.expect("it goes on");
    wait_running(ids::mirror(&bed.name)).await;
    bed.sql("insert into t values (2)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    wait::until("a resync", SOON, || async {
        // While it looks at source and destination again, it refuses.
        bed.mirrors().resync_mirror(request.clone()).await.map_err(|error| error.to_string())
    })
    .await;
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
}
