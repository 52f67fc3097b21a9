//! Resyncs of mirrors that are not simply running, and resyncs that cannot be: nothing is half done.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use tonic_types::StatusExt;

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("recopied::a_completed_mirror_copies_and_ends_again", a_completed_mirror_copies_and_ends_again),
        test("recopied::a_copy_that_runs_begins_anew", a_copy_that_runs_begins_anew),
        test("recopied::a_missing_table_changes_nothing", a_missing_table_changes_nothing),
        test("recopied::an_unpublished_table_changes_nothing", an_unpublished_table_changes_nothing),
        test("recopied::tables_that_were_just_edited", tables_that_were_just_edited),
    ]
}

impl Bed {
    async fn resync_all(&self) -> Result<api::Mirror, tonic::Status> {
        let request = api::ResyncMirrorRequest { name: self.name.clone(), ..Default::default() };
        self.mirrors().resync_mirror(request).await.map(tonic::Response::into_inner)
    }

    async fn wait_no_slot(&self) {
        let sql = "select count(*) from pg_replication_slots where database = current_database()";
        wait::until("no slot", SOON, || async {
            match self.source.query_one(sql, &[]).await.map_err(|error| error.to_string())?.get(0) {
                0_i64 => Ok(()),
                slots => Err(format!("{slots} slots")),
            }
        })
        .await;
    }
}

fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().expect("ErrorInfo").reason.clone()
}

fn states(mirror: &api::Mirror) -> Vec<(table::State, i64)> {
    mirror.tables.iter().map(|table| (table.state(), table.rows_copied)).collect()
}

async fn a_completed_mirror_copies_and_ends_again(bed: Bed) {
    bed.sql(
        "create table a (id int primary key, v int); create table b (id int primary key);
         insert into a select i, 0 from generate_series(1, 500) i; insert into b values (1)",
    )
    .await;
    let asked =
        api::Mirror { mode: mirror::Mode::SnapshotOnly.into(), ..bed.mirror(&["public.a", "public.b"]) };
    let created = bed.create(asked).await.expect("a mirror");
    bed.wait_state(mirror::State::Completed).await;
    for round in 1..3 {
        // What was deleted and changed in between is told by no log; the destination is spoilt, too.
        bed.sql(&format!("delete from a where id % 10 = {round}; update a set v = {round} where id % 10 = 7; insert into b values ({round} + 10)"))
            .await;
        bed.clickhouse.query("delete from b where id = 1").await.expect("a row is deleted by hand");
        bed.resync_all().await.expect("a resync");
        bed.wait_for("all is copied again", |mirror| {
            mirror.state() == mirror::State::Completed
                && mirror.tables.iter().all(|table| table.state() == table::State::Streaming)
        })
        .await;
        assert_eq!(bed.wait_equal("a", "a").await, 500 - 50 * round);
        assert_eq!(bed.wait_equal("b", "b").await, 1 + round);
        bed.wait_no_slot().await;
    }
    let mirror = bed.get().await.expect("the mirror");
    assert_eq!((mirror.settings, mirror.mode), (created.settings, created.mode), "it is what it was");
    let request = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    assert!(bed.mirrors().delete_mirror(request).await.expect("it is deleted").into_inner().done);
}

async fn a_copy_that_runs_begins_anew(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 1000) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    // Copies wait for this one, so each is under way for as long as the test likes.
    let open = bed.session().await;
    open.batch_execute("begin; insert into t values (5000, 1)").await.expect("an open transaction");
    bed.resync_all().await.expect("a resync");
    bed.wait_for("a copy that waits", |mirror| !mirror.tables[0].blocked_by.is_empty()).await;
    bed.clickhouse.query("delete from t where id = 77").await.expect("a row is deleted by hand");
    bed.resync_all().await.expect("another resync");
    bed.sql("update t set v = 1 where id < 100; delete from t where id = 500").await;
    open.batch_execute("commit").await.expect("its end");
    bed.wait_table("public.t", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("t", "t").await, 1_000);
    let request = api::ListMirrorEventsRequest { name: bed.name.clone(), ..Default::default() };
    let events = bed.mirrors().list_mirror_events(request).await.expect("events").into_inner().events;
    assert!(events.iter().any(|event| event.message.contains("copied again")), "{events:#?}");
}

async fn a_missing_table_changes_nothing(bed: Bed) {
    bed.sql(
        "create table a (id int primary key); create table b (id int primary key); insert into a values (1)",
    )
    .await;
    bed.mirror_streaming(&["public.a", "public.b"]).await;
    bed.sql("drop table b").await;
    let before = states(&bed.get().await.expect("the mirror"));
    let refused = bed.resync_all().await.expect_err("a table is missing");
    assert_eq!(reason(&refused), "SOURCE_TABLE_MISSING", "{refused:?}");
    assert!(refused.message().contains("public.b"), "{refused:?}");
    assert_eq!(states(&bed.get().await.expect("the mirror")), before);
    bed.sql("insert into a values (2)").await;
    assert_eq!(bed.wait_equal("a", "a").await, 2);
    // The others by their names.
    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: "public.a".into(), ..Default::default() };
    bed.mirrors().resync_table(request).await.expect("a resync");
    bed.wait_table("public.a", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("a", "a").await, 2);
}

async fn an_unpublished_table_changes_nothing(bed: Bed) {
    bed.sql(
        "create table a (id int primary key); create table b (id int primary key); insert into a values (1);
         insert into b values (1); create publication owned for table a, b",
    )
    .await;
    let mut asked = bed.mirror(&["public.a", "public.b"]);
    asked.settings = Some(api::Settings { publication: "owned".into(), ..Default::default() });
    bed.create(asked).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    bed.sql("alter publication owned drop table b; insert into b values (2)").await;
    let before = states(&bed.get().await.expect("the mirror"));
    let refused = bed.resync_all().await.expect_err("a table is not published");
    assert_eq!(reason(&refused), "PUBLICATION_MISSING", "{refused:?}");
    assert!(refused.message().contains("public.b"), "{refused:?}");
    assert_eq!(states(&bed.get().await.expect("the mirror")), before);
    bed.sql("alter publication owned add table b; insert into a values (2)").await;
    assert_eq!(bed.wait_equal("a", "a").await, 2);
    bed.resync_all().await.expect("a resync");
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("b", "b").await, 2);
}

async fn tables_that_were_just_edited(bed: Bed) {
    bed.sql(
        "create table a (id int primary key); create table b (id int primary key); create table c (id int primary key, v int);
         insert into a values (1); insert into b values (1); insert into c select i, i from generate_series(1, 300) i",
    )
    .await;
    bed.mirror_streaming(&["public.a", "public.b"]).await;
    let asked = bed.mirror(&["public.a", "public.c"]);
    let asked = api::Mirror { name: bed.name.clone(), tables: asked.tables, ..Default::default() };
    let request = api::UpdateMirrorRequest { mirror: Some(asked), ..Default::default() };
    bed.mirrors().update_mirror(request).await.expect("other tables");
    bed.resync_all().await.expect("a resync");
    bed.sql("insert into a values (2); insert into b values (2); update c set v = -v where id < 10").await;
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("a", "a").await, 2);
    assert_eq!(bed.wait_equal("c", "c").await, 300);
    let left = bed.clickhouse.query("select count() from b final").await.expect("a count");
    assert_eq!(left.trim(), "1", "what left the mirror stays as it was");
}
