//! Transactions of every shape: what was committed is there, what was rolled back is not.

use std::pin::pin;

use futures::SinkExt;
use libtest_mimic::Trial;
use std::io::Cursor;

use crate::support::bed::Bed;
use crate::support::cell::Cell;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("transactions::savepoints_rolled_back_leave_nothing", savepoints_rolled_back_leave_nothing),
        test("transactions::copy_and_multi_row_inserts", copy_and_multi_row_inserts),
        test("transactions::on_conflict_and_merge", on_conflict_and_merge),
        test("transactions::insert_update_and_delete_in_one_batch", insert_update_and_delete_in_one_batch),
        test("transactions::composite_keys_with_large_values", composite_keys_with_large_values),
        test("transactions::prepared_transactions", prepared_transactions),
        test("transactions::a_huge_one_in_bounded_memory", a_huge_one_in_bounded_memory),
    ]
}

async fn savepoints_rolled_back_leave_nothing(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql(
        "begin; update t set v = 'kept' where id <= 10;
         savepoint a; update t set v = 'lost' where id <= 20; insert into t select i, 'lost' from generate_series(201, 300) i; truncate t; rollback to a;
         savepoint b; insert into t values (101, 'kept'); savepoint c; delete from t where id < 50; update t set id = id + 1000 where id > 90; rollback to c;
         delete from t where id = 11; release b; savepoint d; insert into t values (102, 'lost'); rollback to d; insert into t values (102, 'kept'); commit;
         begin; delete from t; rollback",
    )
    .await;
    // A block that catches its own errors is a sub-transaction for every round.
    bed.sql(
        "do $$ begin for i in 1..300 loop begin
             insert into t values (i, 'loop'); if i % 3 = 0 then raise 'no'; end if;
         exception when others then update t set v = v || '!' where id = i; end; end loop; end $$",
    )
    .await;
    assert!(bed.wait_equal("t", "t").await > 200);
}

async fn copy_and_multi_row_inserts(bed: Bed) {
    bed.sql("create table t (id int primary key, v text); create table u (id int primary key, v text)").await;
    bed.mirror_streaming(&["public.t", "public.u"]).await;
    let rows: String = (1..=20_000).map(|i| format!("{i}\tcopied {i}\n")).collect();
    copy(&bed, "copy t from stdin", &rows).await;
    bed.sql("begin; truncate u").await;
    copy(&bed, "copy u from stdin (freeze)", &rows).await;
    bed.sql("commit").await;
    let values: Vec<String> = (30_001..=33_000).map(|i| format!("({i}, 'row {i}')")).collect();
    bed.sql(&format!("insert into t values {}", values.join(", "))).await;
    bed.sql("insert into u select id + 100000, v from t; with gone as (delete from t where id % 2 = 0 returning *) insert into u select -id, v from gone").await;
    assert_eq!(bed.wait_equal("t", "t").await, 11_500);
    assert_eq!(bed.wait_equal("u", "u").await, 20_000 + 23_000 + 11_500);
}

async fn copy(bed: &Bed, sql: &str, rows: &str) {
    let mut sink = pin!(bed.source.copy_in::<_, Cursor<Vec<u8>>>(sql).await.expect("COPY"));
    sink.send(Cursor::new(rows.as_bytes().to_vec())).await.expect("rows");
    sink.finish().await.expect("the end of COPY");
}

async fn on_conflict_and_merge(bed: Bed) {
    bed.sql("create table t (a int, b text, v int, primary key (a, b)); insert into t select i, 'k', i from generate_series(1, 100) i").await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("insert into t select i, 'k', -i from generate_series(50, 150) i on conflict do nothing").await;
    bed.sql("insert into t select i, 'k', -i from generate_series(90, 200) i on conflict (a, b) do update set v = excluded.v, b = case when t.a % 2 = 0 then 'moved' else t.b end").await;
    bed.sql(
        "merge into t using (select i as a from generate_series(190, 260) i) s on t.a = s.a
         when matched and t.a % 3 = 0 then delete when matched then update set v = 7 when not matched then insert values (s.a, 'merged', 0)",
    )
    .await;
    assert!(bed.wait_equal("t", "t").await > 200);
}

/// Changes of one key that meet in a batch, in a transaction or out of it: the last one wins.
async fn insert_update_and_delete_in_one_batch(bed: Bed) {
    bed.sql(
        "create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 50) i",
    )
    .await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql("begin; insert into t values (100, 1); update t set v = 2 where id = 100; delete from t where id = 100; commit").await;
    bed.sql("begin; update t set v = 1 where id = 1; delete from t where id = 1; commit").await;
    bed.sql("begin; delete from t where id = 2; insert into t values (2, 9); commit").await;
    bed.sql("insert into t values (101, 1); update t set v = 2 where id = 101; delete from t where id = 101; insert into t values (101, 3)").await;
    bed.sql("delete from t where id = 3; insert into t values (3, 1); delete from t where id = 3").await;
    bed.sql("begin; update t set id = 500 where id = 4; update t set id = 4 where id = 500; update t set id = 600 where id = 5; insert into t values (5, 5); delete from t where id = 600; commit").await;
    for round in 0..20 {
        bed.sql(&format!("insert into t values (200, {round}); update t set v = v + 1 where id = 200; delete from t where id = 200; insert into t values (201, {round}) on conflict (id) do update set v = excluded.v")).await;
    }
    assert_eq!(bed.wait_equal("t", "t").await, 50);
}

/// Values that PostgreSQL does not send when they did not change, under keys of several columns.
async fn composite_keys_with_large_values(bed: Bed) {
    bed.sql("create table t (a int, b text, v int, one text, other text, primary key (b, a)); alter table t alter one set storage external, alter other set storage external").await;
    let large = |n: &str| format!("repeat(md5(({n})::text), 500)");
    bed.sql(&format!(
        "insert into t select i, 'k' || i % 3, 0, {}, {} from generate_series(1, 60) i",
        large("i"),
        large("-i")
    ))
    .await;
    bed.mirror_streaming(&["public.t"]).await;
    bed.sql(&format!("begin; insert into t select i, 'n', 0, {}, {} from generate_series(101, 120) i; update t set v = 1 where a > 100; delete from t where a > 115; commit", large("i"), large("-i"))).await;
    bed.sql(&format!("update t set one = {} where a < 10; update t set v = v + 1 where a < 20; update t set other = 'x' where a between 5 and 12", large("v"))).await;
    bed.sql("begin; update t set b = b || '!' where a in (20, 21); update t set v = -1 where a in (21, 22); update t set a = a + 1000 where a = 22; delete from t where a = 1022; commit").await;
    bed.sql("begin; update t set v = 5 where a = 30; delete from t where a = 30; insert into t values (30, 'k0', 6, 'short', null); update t set v = 7 where a = 30; commit").await;
    let types = "select groupArray(name) from (select name from system.columns where database = currentDatabase() and table = 't' and is_in_sorting_key)";
    assert_eq!(
        bed.clickhouse
            .query("select sorting_key from system.tables where database = currentDatabase() and name = 't'")
            .await
            .expect("a key")
            .trim(),
        "b, a"
    );
    assert_eq!(bed.clickhouse.query(types).await.expect("columns").trim(), "['a','b']");
    assert_eq!(bed.wait_equal("t", "t").await, 74);
}

async fn prepared_transactions(bed: Bed) {
    bed.sql(
        "create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 20) i",
    )
    .await;
    bed.mirror_streaming(&["public.t"]).await;
    let name = &bed.name;
    bed.sql(&format!(
        "begin; update t set v = 1 where id <= 10; insert into t values (100, 1); prepare transaction '{name}-1'"
    ))
    .await;
    bed.sql(&format!("begin; delete from t where id > 15; prepare transaction '{name}-2'")).await;
    bed.sql("update t set v = 2 where id = 11").await;
    // Short: while they are open, no slot of the cluster can be made and no copy can begin.
    bed.sql(&format!("commit prepared '{name}-1'")).await;
    bed.sql(&format!("rollback prepared '{name}-2'")).await;
    bed.sql("update t set v = 3 where id = 1").await;
    assert_eq!(bed.wait_equal("t", "t").await, 21);
}

/// Set for two million rows instead of two hundred thousand.
const LONG: &str = "MILLRACE_TEST_LONG";
/// What a worker may hold more than before, at most: less than the transaction's 200 MB. Its buffers
/// are bounded at 128 MiB for all streams together.
const GROWTH_BYTES_MAX: u64 = 190 << 20;

/// One transaction that is larger than what a worker may hold, and that the source spills to its disk.
async fn a_huge_one_in_bounded_memory(mut bed: Bed) {
    let cell = Cell::new(&mut bed).await;
    let (rows, md5s) = if std::env::var_os(LONG).is_some() { (2_000_000, 10) } else { (100_000, 64) };
    bed.sql(
        "create table t (id int primary key, v int, filler text); alter table t alter filler set storage plain; create table small (id int primary key)",
    )
    .await;
    let worker = cell.worker().await;
    bed.mirror_streaming(&["public.t", "public.small"]).await;
    let before = worker.peak_memory();
    bed.sql(&format!(
        "begin; insert into small values (1); insert into t select i, 0, repeat(md5(i::text), {md5s}) from generate_series(1, {rows}) i;
         update t set v = 1 where id % 50 = 0; delete from t where id % 1000 = 1; insert into small values (2); commit"
    ))
    .await;
    let spilled =
        "select coalesce(sum(spill_txns), 0)::int8 from pg_stat_replication_slots where slot_name like $1";
    bed.wait_equal("small", "small").await;
    bed.wait_lines("select toString(count()) as line from t final", &[(rows - rows / 1000).to_string()])
        .await;
    assert_eq!(bed.wait_equal("t", "t").await, rows - rows / 1000);
    let pattern = format!("%{}%", bed.name.replace('-', "_"));
    let spills: i64 = bed.source.query_one(spilled, &[&pattern]).await.expect("statistics").get(0);
    assert!(spills > 0, "the transaction was not spilled");
    let growth = worker.peak_memory() - before;
    assert!(growth < GROWTH_BYTES_MAX, "the worker grew from {} by {} MiB", before >> 20, growth >> 20);
}
