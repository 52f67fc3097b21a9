//! Changes: what happens to a row after the mirror was created happens to it in ClickHouse.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror, table};

use crate::support::bed::Bed;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("stream::follows_inserts_updates_deletes", follows_inserts_updates_deletes),
        test("stream::follows_key_changes", follows_key_changes),
        test("stream::keeps_unchanged_toast", keeps_unchanged_toast),
        test("stream::truncates", truncates),
        test("stream::replica_identity_full_and_index", replica_identity_full_and_index),
        test("stream::streams_while_copying", streams_while_copying),
        test("stream::large_transaction", large_transaction),
        test("stream::taken_key_of_a_waiting_insert", taken_key_of_a_waiting_insert),
        test("stream::pause_and_resume", pause_and_resume),
        test("stream::one_bad_table_stops_only_itself", one_bad_table_stops_only_itself),
        test("stream::position_moves_without_changes", position_moves_without_changes),
    ]
}

async fn follows_inserts_updates_deletes(bed: Bed) {
    bed.sql("create table t (a int, b text, v int, primary key (b, a)); insert into t select i, 'k' || i % 10, i from generate_series(1, 1000) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("insert into t select i, 'n', i from generate_series(1, 500) i").await;
    bed.sql("update t set v = v + 1 where a % 3 = 0").await;
    bed.sql("delete from t where a % 5 = 0").await;
    bed.sql("begin; insert into t values (5, 'k5', 0); savepoint s; delete from t where b = 'n'; rollback to s; update t set v = -1 where b = 'n' and a < 10; commit").await;
    bed.sql("insert into t values (5, 'k5', 1) on conflict (b, a) do update set v = 77").await;
    assert!(bed.wait_equal("t", "t").await > 1_000);
}

async fn follows_key_changes(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("update t set id = id + 1000 where id <= 50").await;
    bed.sql("update t set id = -id, v = v || '!' where id > 1040").await;
    bed.sql("begin; delete from t where id = 60; update t set id = 60 where id = 61; insert into t values (61, 'new'); commit").await;
    assert_eq!(bed.wait_equal("t", "t").await, 100);
}

async fn keeps_unchanged_toast(bed: Bed) {
    bed.sql("create table t (id int primary key, big text, other text, v int); alter table t alter big set storage external, alter other set storage external").await;
    bed.sql("insert into t select i, repeat(md5(i::text), 1000), repeat(md5((-i)::text), 1000), 0 from generate_series(1, 50) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("update t set v = id").await;
    bed.sql("update t set id = id + 100 where id <= 10").await;
    bed.sql("update t set other = 'short' where id between 20 and 25").await;
    bed.sql("begin; update t set big = repeat('new', 10000) where id = 30; update t set v = 99 where id = 30; update t set v = 100 where id = 30; commit").await;
    bed.sql("begin; insert into t values (500, repeat('x', 50000), repeat('y', 50000), 1); update t set v = 2 where id = 500; update t set id = 501 where id = 500; commit").await;
    bed.sql("update t set v = -1 where id = 31; delete from t where id = 31").await;
    bed.sql("update t set v = -1 where id = 32; update t set id = 932 where id = 32").await;
    assert_eq!(bed.wait_equal("t", "t").await, 50);
}

async fn truncates(bed: Bed) {
    bed.sql("create table t (id int primary key, v int); create table u (id int primary key references t); insert into t select i, i from generate_series(1, 500) i; insert into u select i from generate_series(1, 10) i").await;
    bed.mirror_streaming(&["public.t", "public.u"]).await;
    bed.sql(
        "begin; insert into t values (1000, 1); truncate t, u; insert into t values (1, 2), (2, 3); commit",
    )
    .await;
    assert_eq!(bed.wait_equal("t", "t").await, 2);
    assert_eq!(bed.wait_equal("u", "u").await, 0);
    bed.sql("truncate t cascade").await;
    bed.sql("insert into t values (7, 7)").await;
    assert_eq!(bed.wait_equal("t", "t").await, 1);
}

async fn replica_identity_full_and_index(bed: Bed) {
    bed.sql(
        "create table f (id int primary key, big text, v int); alter table f replica identity full, alter big set storage external;
         create table x (a int not null, b int not null, v text); create unique index x_key on x (b, a); alter table x replica identity using index x_key;
         insert into f select i, repeat('z', 20000), i from generate_series(1, 20) i; insert into x select i, i * 2, 'v' from generate_series(1, 20) i",
    )
    .await;
    bed.mirror_streaming(&["public.f", "public.x"]).await;
    bed.sql("update f set v = -v; update f set id = id + 50 where id < 5; delete from f where id = 10").await;
    bed.sql(
        "update x set v = 'w' where a < 5; update x set b = b + 100 where a > 15; delete from x where a = 10",
    )
    .await;
    assert_eq!(bed.wait_equal("f", "f").await, 19);
    assert_eq!(bed.wait_equal("x", "x").await, 19);
}

async fn streams_while_copying(bed: Bed) {
    bed.sql("create table t (id int primary key, v int, filler text)").await;
    bed.sql("insert into t select i, 0, repeat(md5(i::text), 20) from generate_series(1, 30000) i").await;
    let writer = bed.session().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let writing = tokio::spawn(async move {
        let mut round = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            round += 1;
            let sql = format!(
                "update t set v = {round} where id % 100 = {round} % 100;
                 delete from t where id = {round}; insert into t values ({round} + 100000, {round}, 'new');
                 update t set id = id + 200000 where id = 15000 + {round}"
            );
            writer.batch_execute(&sql).await.expect("writes");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        round
    });
    let mut request = bed.mirror(&["public.t"]);
    request.settings = Some(api::Settings {
        snapshot: Some(api::SnapshotSettings { partition_bytes: Some(1 << 20), ..Default::default() }),
        ..Default::default()
    });
    bed.create(request).await.expect("a mirror");
    bed.wait_state(mirror::State::Running).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(writing.await.expect("the writer") > 10);
    assert_eq!(bed.wait_equal("t", "t").await, 30_000);
}

async fn large_transaction(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); create table other (id int primary key)").await;
    bed.mirror_streaming(&["public.t", "public.other"]).await;
    bed.sql("begin; insert into t select i, md5(i::text) from generate_series(1, 150000) i; insert into other select i from generate_series(1, 10) i; delete from t where id % 10 = 0; commit").await;
    assert_eq!(bed.wait_equal("t", "t").await, 135_000);
    assert_eq!(bed.wait_equal("other", "other").await, 10);
}

/// The insert of T2 is in the log before the delete of T1 that lets it pass (design section 3).
async fn taken_key_of_a_waiting_insert(bed: Bed) {
    bed.sql("create table t (id int primary key, v text)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let (first, second) = (bed.session().await, bed.session().await);
    for round in 0..5 {
        first.batch_execute(&format!("begin; insert into t values ({round}, 'first')")).await.expect("T1");
        let insert = format!("insert into t values ({round}, 'second')");
        let (inserted, ()) = tokio::join!(second.batch_execute(&insert), async {
            blocked(&bed).await;
            first.batch_execute(&format!("delete from t where id = {round}; commit")).await.expect("T1 ends");
        });
        inserted.expect("T2 passes");
    }
    assert_eq!(bed.wait_equal("t", "t").await, 5);
}

/// Waits until some session of the test's database waits for another.
async fn blocked(bed: &Bed) {
    crate::support::wait::until("a waiting session", crate::support::bed::SOON, || async {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let row = bed.source.query_one(sql, &[]).await.map_err(|error| error.to_string())?;
        if row.get::<_, i64>(0) > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
    })
    .await;
}

async fn pause_and_resume(bed: Bed) {
    bed.sql("create table t (id int primary key); insert into t values (1)").await;
    bed.mirror_streaming(&["public.t"]).await;
    let pause = api::PauseMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().pause_mirror(pause.clone()).await.expect("paused");
    let paused = bed.wait_state(mirror::State::Paused).await;
    assert!(paused.streams[0].reason.contains("paused"), "{paused:?}");
    bed.sql("insert into t select generate_series(2, 100)").await;
    let seen = bed.clickhouse.query("select count() from t final").await.expect("a count");
    assert_eq!(seen.trim(), "1", "a paused mirror writes nothing");
    bed.mirrors().pause_mirror(pause).await.expect("a paused mirror is as asked for");
    let resume = api::ResumeMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resume_mirror(resume).await.expect("resumed");
    bed.wait_state(mirror::State::Running).await;
    assert_eq!(bed.wait_equal("t", "t").await, 100);
}

async fn one_bad_table_stops_only_itself(bed: Bed) {
    bed.sql("create table good (id int primary key); create table bad (id int primary key, v int)").await;
    bed.mirror_streaming(&["public.good", "public.bad"]).await;
    bed.clickhouse.query("drop table bad sync").await.expect("the destination table dropped by hand");
    bed.sql("insert into bad values (1, 1); insert into good select generate_series(1, 100)").await;
    let mirror = bed.wait_table("public.bad", table::State::Error).await;
    let error = mirror
        .tables
        .iter()
        .find(|t| t.source == "public.bad")
        .and_then(|t| t.error.clone())
        .expect("its error");
    assert_eq!(error.code, "DESTINATION_TABLE_CHANGED", "{error:?}");
    assert!(!error.remedy.is_empty());
    assert_eq!(mirror.state(), mirror::State::Degraded);
    assert_eq!(bed.wait_equal("good", "good").await, 100);
    bed.sql("insert into good values (101)").await;
    assert_eq!(bed.wait_equal("good", "good").await, 101);
}

/// WAL of tables that are not replicated must not be held by the slot.
async fn position_moves_without_changes(bed: Bed) {
    bed.sql("create table t (id int primary key); create table unrelated (id int primary key)").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("insert into unrelated select generate_series(1, 10000)").await;
    let row = bed.source.query_one("select pg_current_wal_lsn()::text", &[]).await.expect("a position");
    let target: millrace_terms::Lsn = row.get::<_, String>(0).parse().expect("a position");
    bed.wait_for("the position has passed", |mirror| {
        mirror.streams[0].position.parse::<millrace_terms::Lsn>().is_ok_and(|position| position >= target)
    })
    .await;
}
