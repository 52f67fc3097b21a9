//! Resync: a table is copied again while everything streams, and comes back from an error.

use std::time::Duration;

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};

use crate::support::bed::Bed;
use crate::support::repeated::Repeated;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("resync::mends_while_writers_and_readers_go_on", mends_while_writers_and_readers_go_on),
        test("resync::all_tables_of_a_mirror", all_tables_of_a_mirror),
        test("resync::brings_back_a_dropped_destination", brings_back_a_dropped_destination),
        test("resync::follows_a_changed_column", follows_a_changed_column),
        test("resync::follows_a_recreated_table", follows_a_recreated_table),
        test("resync::follows_a_truncated_partition_by_itself", follows_a_truncated_partition_by_itself),
        test("resync::is_refused_where_nothing_would_do_it", is_refused_where_nothing_would_do_it),
    ]
}

async fn resync(bed: &Bed, table: &str) -> Result<api::Mirror, tonic::Status> {
    let request =
        api::ResyncTableRequest { name: bed.name.clone(), table: table.to_owned(), ..Default::default() };
    bed.mirrors().resync_table(request).await.map(tonic::Response::into_inner)
}

/// Waits until a resync that was answered is over: the table was in RESYNCING then.
async fn wait_copied(bed: &Bed, source: &str) {
    bed.wait_table(source, table::State::Streaming).await;
}

async fn count(bed: &Bed, table: &str) -> u64 {
    let answer = bed.clickhouse.query(&format!("select count() from {table} final")).await.expect("a count");
    answer.trim().parse().expect("a number")
}

async fn mends_while_writers_and_readers_go_on(bed: Bed) {
    bed.sql("create table t (id int primary key, v int, filler text); create table other (id int primary key, v int)").await;
    bed.sql("insert into t select i, 0, repeat(md5(i::text), 10) from generate_series(1, 20000) i; insert into other select i, 0 from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t", "public.other"]).await;
    bed.clickhouse.query("delete from t where id = 77").await.expect("a row is deleted by hand");
    bed.clickhouse
        .query("insert into t (id, v, filler, _version, _is_deleted, _synced_at) values (-1, 5, 'no', 1, 0, now64(6))")
        .await
        .expect("a row is inserted by hand");
    assert_eq!(count(&bed, "t").await, 20_000, "one row too few, one too many");

    // Rows are replaced and added, so readers may see more, and never fewer.
    let writes = Repeated::on_source(&bed, |round| {
        format!(
            "update t set v = {round} where id % 200 = {round} % 200; insert into t values ({round} + 100000, {round}, 'new');
             update other set v = {round}"
        )
    })
    .await;
    let answer = resync(&bed, "public.t").await.expect("a resync");
    let state = answer.tables.iter().find(|table| table.source == "public.t").expect("the table").state();
    assert!(matches!(state, table::State::Resyncing | table::State::Streaming), "{state:?}");
    let copied = wait_copied(&bed, "public.t");
    tokio::pin!(copied);
    let mut looks = 0;
    loop {
        tokio::select! {
            () = &mut copied => break,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        let seen = count(&bed, "t").await;
        assert!(seen >= 19_999, "a reader sees {seen} rows");
        looks += 1;
    }
    assert!(looks > 2, "{looks} looks");
    assert!(writes.end().await > 10);
    assert!(bed.wait_equal("t", "t").await > 20_000);
    assert_eq!(bed.wait_equal("other", "other").await, 100);
    bed.wait_state(mirror::State::Running).await;
}

async fn all_tables_of_a_mirror(bed: Bed) {
    bed.sql("create table a (id int primary key); create table b (id int primary key); insert into a select generate_series(1, 100); insert into b select generate_series(1, 100)").await;
    bed.mirror_streaming(&["public.a", "public.b"]).await;
    bed.clickhouse.query("delete from a where id < 50").await.expect("rows are deleted by hand");
    bed.clickhouse.query("delete from b where id > 50").await.expect("rows are deleted by hand");
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    wait_copied(&bed, "public.a").await;
    wait_copied(&bed, "public.b").await;
    assert_eq!(bed.wait_equal("a", "a").await, 100);
    assert_eq!(bed.wait_equal("b", "b").await, 100);
}

async fn brings_back_a_dropped_destination(bed: Bed) {
    bed.sql("create table good (id int primary key, v int); create table bad (id int primary key, v int); insert into good select i, i from generate_series(1, 100) i; insert into bad select i, i from generate_series(1, 1000) i").await;
    bed.mirror_streaming(&["public.good", "public.bad"]).await;
    bed.clickhouse.query("drop table bad sync").await.expect("the destination table is dropped by hand");
    bed.sql("insert into bad values (5000, 1)").await;
    bed.wait_table("public.bad", table::State::Error).await;
    // Of changes while it is in error nothing is left but the source's table.
    bed.sql("update bad set v = -v where id < 100; delete from bad where id = 500; update bad set id = id + 10000 where id = 501").await;

    let writes = Repeated::on_source(&bed, |round| {
        format!(
            "update bad set v = {round} where id % 20 = {round} % 20; insert into bad values ({round} + 100000, 0);
             insert into good values ({round} + 1000, {round})"
        )
    })
    .await;
    resync(&bed, "public.bad").await.expect("a resync");
    wait_copied(&bed, "public.bad").await;
    assert!(writes.end().await > 10);
    assert!(bed.wait_equal("bad", "bad").await > 1_000);
    assert!(bed.wait_equal("good", "good").await > 100);
    bed.wait_state(mirror::State::Running).await;
    bed.sql("delete from bad where id < 200; insert into bad values (-3, -3)").await;
    bed.wait_equal("bad", "bad").await;
}

async fn follows_a_changed_column(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); create table other (id int primary key); insert into t select i, i from generate_series(1, 1000) i").await;
    let mut asked = bed.mirror(&["public.t", "public.other"]);
    let on_rewrite = api::settings::OnRewrite::StopTable.into();
    asked.settings = Some(api::Settings { on_rewrite, ..Default::default() });
    bed.create(asked).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    // Rows of the former shape are close before the position of the attempt that knows the new one.
    bed.sql("insert into t values (2000, 1); alter table t alter v type text, add w int default 7; insert into t values (2001, 'text', 8); insert into other select generate_series(1, 50)").await;
    let mirror = bed.wait_table("public.t", table::State::Error).await;
    let error = mirror.tables.iter().find(|t| t.source == "public.t").and_then(|t| t.error.clone());
    assert_eq!(error.expect("its error").code, "TABLE_SCHEMA_CHANGED");
    assert_eq!(bed.wait_equal("other", "other").await, 50);

    let others = Repeated::on_source(&bed, |round| format!("insert into other values ({round} + 100)")).await;
    resync(&bed, "public.t").await.expect("a resync");
    bed.sql("update t set v = v || '!' where id % 2 = 0; delete from t where id = 3").await;
    wait_copied(&bed, "public.t").await;
    assert!(others.end().await > 10);
    assert_eq!(bed.wait_equal("t", "t").await, 1_001);
    bed.wait_equal("other", "other").await;
    bed.sql("insert into t values (9000, 'late', null)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1_002);
    bed.wait_state(mirror::State::Running).await;
}

async fn follows_a_recreated_table(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    // Before anything told the stream of it: the resync finds it by itself.
    bed.sql("insert into t values (500, 5); drop table t; create table t (id int primary key, v int); insert into t select i, -i from generate_series(1, 50) i").await;
    resync(&bed, "public.t").await.expect("a resync");
    bed.sql("insert into t values (60, 60); delete from t where id = 1").await;
    wait_copied(&bed, "public.t").await;
    assert_eq!(bed.wait_equal("t", "t").await, 50);
}

async fn follows_a_truncated_partition_by_itself(bed: Bed) {
    bed.sql(
        "create table t (id int primary key, v int) partition by range (id);
         create table low partition of t for values from (0) to (100);
         create table high partition of t for values from (100) to (1000);
         create table other (id int primary key);
         insert into t select i, i from generate_series(1, 500) i",
    )
    .await;
    bed.mirror_streaming(&["public.t", "public.other"]).await;
    let others = Repeated::on_source(&bed, |round| format!("insert into other values ({round})")).await;
    bed.sql("update t set v = -v where id % 7 = 0; truncate high; insert into t values (200, 1)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 100);
    assert!(others.end().await > 10);
    bed.wait_equal("other", "other").await;
    bed.sql("insert into t values (300, 1); delete from t where id = 200").await;
    assert_eq!(bed.wait_equal("t", "t").await, 100);
    bed.wait_state(mirror::State::Running).await;
}

async fn is_refused_where_nothing_would_do_it(bed: Bed) {
    bed.sql("create table t (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let unknown = resync(&bed, "public.nothing").await.expect_err("no such table");
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown:?}");
    let malformed = resync(&bed, "").await.expect_err("no name");
    assert_eq!(malformed.code(), tonic::Code::InvalidArgument, "{malformed:?}");
    let pause = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(pause).await.expect("paused");
    let refused = resync(&bed, "public.t").await.expect_err("it is paused");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("PAUSED"), "{refused:?}");
}
