//! Physical deletes: what was deleted does not come back by an insert that arrives late.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api};
use millrace_workflows::HousekeepingWorkflow;
use temporalio_client::{WorkflowGetResultOptions, WorkflowStartOptions};

use crate::support::bed::{Bed, SOON, connect};
use crate::support::{stack, test, wait};

pub fn tests() -> Vec<Trial> {
    vec![test("fencing::late_inserts_are_deleted_again", late_inserts_are_deleted_again)]
}

/// After a TRUNCATE and after a sweep; the stream is paused by then.
async fn late_inserts_are_deleted_again(bed: Bed) {
    let tables = ["emptied", "swept"];
    for table in tables {
        bed.sql(&format!("create table {table} (id int primary key); insert into {table} values (1)")).await;
    }
    bed.mirror_streaming(&["public.emptied", "public.swept"]).await;
    bed.sql("truncate emptied").await;
    bed.wait_equal("emptied", "emptied").await;
    let request = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(request).await.expect("a pause");

    // What an insert brings that was begun long ago: the server took its time.
    for table in tables {
        let late = format!("insert into {table} (id, _version) values (7, 1)");
        bed.clickhouse.query(&late).await.expect("a late insert");
    }
    let late = || async {
        let sql = "select (select count() from emptied final where id = 7) + (select count() from swept final where id = 7)";
        bed.clickhouse.query(sql).await.expect("a count").trim().to_owned()
    };
    housekeep(&bed).await;
    assert_eq!(late().await, "2", "an insert may be alive still: it is not the time yet");
    let catalog = connect(&stack::endpoints().catalog, None).await;
    let later = "update mirror_tables set purged_at = purged_at - interval '1 hour' where mirror = $1";
    assert_eq!(catalog.execute(later, &[&bed.name]).await.expect("the catalog"), 2);
    housekeep(&bed).await;
    wait::until("late rows are gone", SOON, || async {
        let late = late().await;
        if late == "0" { Ok(()) } else { Err(late) }
    })
    .await;
    let due = "select count(*) from mirror_tables where mirror = $1 and purged_at is not null";
    let row = catalog.query_one(due, &[&bed.name]).await.expect("the catalog");
    assert_eq!(row.get::<_, i64>(0), 0, "once is enough");
}

/// A round of housekeeping, now.
async fn housekeep(bed: &Bed) {
    let id = format!("housekeeping-{}", bed.name);
    let options = WorkflowStartOptions::new("millrace-control", id).build();
    let client = stack::temporal().await;
    let round = client.start_workflow(HousekeepingWorkflow::run, (), options).await.expect("a round");
    round.get_result(WorkflowGetResultOptions::default()).await.expect("its report");
}
