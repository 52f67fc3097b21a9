//! Mirrors that only copy, and mirrors that only follow.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("modes::a_copy_ends_by_itself_and_leaves_nothing_behind", a_copy_ends_by_itself),
        test("modes::a_stream_begins_with_what_is_written_afterwards", a_stream_begins_afterwards),
    ]
}

async fn slots(bed: &Bed) -> i64 {
    let sql = "select count(*) from pg_replication_slots where database = current_database()";
    bed.source.query_one(sql, &[]).await.expect("the slots").get(0)
}

async fn a_copy_ends_by_itself(bed: Bed) {
    bed.sql(
        "create table a (id int primary key, v int); create table b (id int primary key);
             insert into a select i, 0 from generate_series(1, 20000) i; insert into b values (1)",
    )
    .await;
    let asked =
        api::Mirror { mode: mirror::Mode::SnapshotOnly.into(), ..bed.mirror(&["public.a", "public.b"]) };
    bed.create(asked).await.expect("a mirror");
    bed.sql("update a set v = 1 where id % 3 = 0; delete from a where id % 7 = 0").await;
    bed.wait_state(mirror::State::Completed).await;
    wait::until("no slot", SOON, || async {
        match slots(&bed).await {
            0 => Ok(()),
            slots => Err(format!("{slots} slots")),
        }
    })
    .await;
    // What was committed before the copy began is in it, whole; nothing follows.
    bed.wait_equal("a", "a").await;
    bed.wait_equal("b", "b").await;
    bed.sql("insert into b values (2)").await;
    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: "public.b".into(), ..Default::default() };
    let refused = bed.mirrors().resync_table(request).await.expect_err("it is over");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    let request = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let refused = bed.mirrors().pause_mirror(request).await.expect_err("it is over");
    assert!(refused.message().contains("COMPLETED"), "{refused:?}");
    assert_eq!(bed.clickhouse.query("select count() from b final").await.unwrap().trim(), "1");
    let request = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let gone = bed.mirrors().delete_mirror(request).await.expect("it is deleted").into_inner();
    assert_eq!((gone.done, gone.leftovers), (true, Vec::new()));
    assert_eq!(slots(&bed).await, 0);
}

async fn a_stream_begins_afterwards(bed: Bed) {
    bed.sql("create table a (id int primary key, v int); insert into a select i, 0 from generate_series(1, 100) i")
        .await;
    let asked = api::Mirror { mode: mirror::Mode::StreamOnly.into(), ..bed.mirror(&["public.a"]) };
    bed.create(asked).await.expect("a mirror");
    bed.wait_table("public.a", table::State::Streaming).await;
    bed.sql("insert into a values (1000, 1); update a set v = 7 where id = 5; delete from a where id = 6")
        .await;
    wait::until("two rows", SOON, || async {
        let rows = bed.clickhouse.query("select id, v from a final order by id format CSV").await;
        match rows.expect("rows").trim() {
            "5,7\n1000,1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}
