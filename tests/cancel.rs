//! A copy that is cancelled stops at once, alone, and goes on where it was.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};
use tonic::{Code, Status};

use crate::support::bed::Bed;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test(
            "cancel::a_copy_stops_alone_and_goes_on_where_it_was",
            a_copy_stops_alone_and_goes_on_where_it_was,
        ),
        test("cancel::a_resync_stops_and_begins_anew", a_resync_stops_and_begins_anew),
    ]
}

const TABLE: &str = "public.b";

async fn cancel(bed: &Bed, table: &str) -> Result<api::Mirror, Status> {
    let request =
        api::CancelTableCopyRequest { name: bed.name.clone(), table: table.into(), ..Default::default() };
    bed.mirrors().cancel_table_copy(request).await.map(tonic::Response::into_inner)
}

async fn resume(bed: &Bed, table: &str) -> api::Mirror {
    let request =
        api::ResumeTableRequest { name: bed.name.clone(), table: table.into(), ..Default::default() };
    bed.mirrors().resume_table(request).await.expect("it goes on").into_inner()
}

fn find(mirror: &api::Mirror) -> api::Table {
    mirror.tables.iter().find(|table| table.source == TABLE).expect("the table").clone()
}

async fn value(bed: &Bed, sql: &str) -> String {
    bed.clickhouse.query(sql).await.expect("an answer").trim().to_owned()
}

/// Tables `a`, and `b` of many partitions that are copied one after the other.
async fn mirror_of_many_partitions(bed: &Bed) {
    bed.sql(
        "create table a (id int primary key); create table c (id int primary key);
         create table b (id int primary key, v int, filler text);
         alter table b alter filler set storage plain;
         insert into a values (1); insert into c values (1);
         insert into b select i, i, repeat('x', 4000) from generate_series(1, 3000) i",
    )
    .await;
    let snapshot = api::SnapshotSettings {
        parallel_partitions: Some(1),
        partition_bytes: Some(1 << 20),
        ..Default::default()
    };
    let settings = api::Settings { snapshot: Some(snapshot), ..Default::default() };
    let asked = api::Mirror { settings: Some(settings), ..bed.mirror(&["public.a", TABLE]) };
    bed.create(asked).await.expect("a mirror");
}

/// Waits until some of the partitions are copied, and keeps the others from being read until the session
/// that it gives ends its transaction.
async fn hold_midway(bed: &Bed) -> tokio_postgres::Client {
    bed.wait_for("a partition is copied", |mirror| find(mirror).partitions_done > 0).await;
    let session = bed.session().await;
    session.batch_execute("begin; lock table b in access exclusive mode").await.expect("the lock");
    let table = find(&bed.get().await.expect("the mirror"));
    assert!(
        table.partitions_done < table.partitions_total,
        "all was copied before it could be held: {table:?}"
    );
    session
}

async fn a_copy_stops_alone_and_goes_on_where_it_was(bed: Bed) {
    mirror_of_many_partitions(&bed).await;
    let held = hold_midway(&bed).await;
    let cancelled = find(&cancel(&bed, TABLE).await.expect("it is cancelled"));
    assert_eq!((cancelled.state(), cancelled.copy_cancelled), (table::State::Copying, true), "{cancelled:?}");
    // No session of a copier is left, not even one that waits.
    let sessions = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'millrace%' and query ilike 'copy (%'
            and state <> 'idle' and pid <> pg_backend_pid()";
    let left: i64 = bed.source.query_one(sessions, &[]).await.expect("the sessions").get(0);
    assert_eq!(left, 0);
    held.batch_execute("rollback").await.expect("the lock's end");
    assert!(find(&cancel(&bed, TABLE).await.expect("once is enough")).copy_cancelled);

    // Its own changes are streamed, other tables join, are copied and stream.
    bed.sql("insert into b values (10000, 1, 'new'); delete from b where id = 1; insert into a values (2)")
        .await;
    let tables = ["public.a", TABLE, "public.c"]
        .map(|source| api::Table { source: source.to_owned(), ..Default::default() });
    let asked = api::Mirror { name: bed.name.clone(), tables: tables.to_vec(), ..Default::default() };
    let request = api::UpdateMirrorRequest { mirror: Some(asked), ..Default::default() };
    bed.mirrors().update_mirror(request).await.expect("another table joins");
    let mirror = bed.wait_table("public.c", table::State::Streaming).await;
    assert_eq!(mirror.state(), mirror::State::Snapshot, "{mirror:?}");
    assert_eq!(bed.wait_equal("a", "a").await, 2);
    bed.wait_lines("select toString(count()) as line from b final where id = 10000", &["1"]).await;
    let table = find(&bed.get().await.expect("the mirror"));
    assert_eq!(table.partitions_done, cancelled.partitions_done, "nothing more was copied: {table:?}");

    let refused = cancel(&bed, "public.c").await.expect_err("nothing is copied");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("STREAMING"), "{refused:?}");

    // It goes on: all that is copied is of the copy that was cancelled.
    let versions = "select toString(groupUniqArray(_version)) from b where id < 10000 and not _is_deleted";
    let before = value(&bed, versions).await;
    let resumed = find(&resume(&bed, TABLE).await);
    assert!(!resumed.copy_cancelled && resumed.partitions_done >= cancelled.partitions_done, "{resumed:?}");
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("b", "b").await, 3000);
    assert_eq!(value(&bed, versions).await, before);
    let streaming = cancel(&bed, TABLE).await.expect_err("it is copied");
    assert!(streaming.message().contains("STREAMING"), "{streaming:?}");
}

async fn a_resync_stops_and_begins_anew(bed: Bed) {
    mirror_of_many_partitions(&bed).await;
    bed.wait_state(mirror::State::Running).await;
    let resync = || async {
        let request =
            api::ResyncTableRequest { name: bed.name.clone(), table: TABLE.into(), ..Default::default() };
        bed.mirrors().resync_table(request).await.expect("a resync").into_inner()
    };
    // Open, it holds back the begin of the copy.
    let open = bed.session().await;
    open.batch_execute("begin; insert into a values (5)").await.expect("a transaction");
    resync().await;
    bed.wait_for("the copy waits", |mirror| !find(mirror).blocked_by.is_empty()).await;
    let cancelled = find(&cancel(&bed, TABLE).await.expect("it is cancelled"));
    assert_eq!((cancelled.state(), cancelled.copy_cancelled), (table::State::Resyncing, true));
    assert_eq!(cancelled.blocked_by, "");
    open.batch_execute("commit").await.expect("its end");
    bed.sql("update b set v = -v where id <= 10").await;
    bed.wait_equal("b", "b").await;
    assert!(find(&bed.get().await.expect("the mirror")).copy_cancelled);

    assert!(!find(&resync().await).copy_cancelled);
    bed.wait_table(TABLE, table::State::Streaming).await;
    bed.wait_equal("b", "b").await;
    // A pause takes the place of what was cancelled.
    resync().await;
    if cancel(&bed, TABLE).await.is_ok() {
        let request =
            api::PauseTableRequest { name: bed.name.clone(), table: TABLE.into(), ..Default::default() };
        let paused = find(&bed.mirrors().pause_table(request).await.expect("a pause").into_inner());
        assert_eq!((paused.state(), paused.copy_cancelled), (table::State::Paused, false));
        resume(&bed, TABLE).await;
    }
    bed.wait_table(TABLE, table::State::Streaming).await;
    assert_eq!(bed.wait_equal("b", "b").await, 3000);
}
