//! The stream: what is committed on the source is what is in the destination.

use std::sync::Arc;
use std::time::Duration;

use millrace_replication::stream::{Limits, MemoryBudget, Report};
use millrace_terms::{Code, Lsn};

use crate::mirror::Mirror;
use crate::servers::APPLICATION;

const ITEMS: &str = "create table items (id bigint primary key, v text, n int)";
const ITEM: &str = "id::text || ' ' || coalesce(v, '-') || ' ' || coalesce(n::text, '-')";
const ITEM_SINK: &str = "concat(toString(id), ' ', ifNull(v, '-'), ' ', ifNull(toString(n), '-'))";

const DOCS: &str = "create table docs (id int primary key, v text, big text);
                    alter table docs alter big set storage external";
const DOC: &str = "id::text || ' ' || coalesce(v, '-') || ' ' || coalesce(md5(big), '-')";
const DOC_SINK: &str =
    "concat(toString(id), ' ', ifNull(v, '-'), ' ', if(isNull(big), '-', lower(hex(MD5(big)))))";

/// A value that is stored out of line.
fn big(seed: &str) -> String {
    format!("(select string_agg(md5('{seed}' || i::text), '') from generate_series(1, 300) i)")
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_every_kind_arrive_in_both_forms() {
    for binary in [false, true] {
        let mut mirror = Mirror::new(
            &format!("{ITEMS}; create table pairs (a int, b text, v numeric(10, 2), primary key (b, a))"),
            &["items", "pairs"],
        )
        .await;
        mirror.config.binary = binary;
        let mut stream = mirror.start();
        mirror
            .source
            .run(
                "insert into items select i, 'v' || i, i from generate_series(1, 1000) i;
                  update items set v = null, n = n + 1 where id % 3 = 0;
                  delete from items where id % 7 = 0;
                  update items set id = id + 10000 where id % 5 = 0;
                  begin; insert into items values (5000, 'a', 1); update items set v = 'b' where id = 5000;
                  delete from items where id = 5000; insert into items values (5000, 'c', 2); commit;
                  begin; insert into items values (6000, 'gone', 1); rollback;
                  insert into pairs values (1, 'x', 1.5), (2, 'x', null), (1, 'y', 3);
                  update pairs set b = 'z' where a = 1 and b = 'y'; update pairs set v = 9.99 where b = 'z';
                  delete from pairs where a = 2",
            )
            .await;
        mirror.caught_up(&mut stream).await;
        assert!(mirror.assert_same(0, ITEM, ITEM_SINK).await > 800);
        let pair = "a::text || ' ' || b || ' ' || coalesce(v::text, '-')";
        let pair_sink = "concat(toString(a), ' ', b, ' ', ifNull(toDecimalString(v, 2), '-'))";
        assert_eq!(mirror.assert_same(1, pair, pair_sink).await, 2);
        stream.stop().await;
    }
}

/// B4 and B9: unchanged large values, by every way to find them.
#[tokio::test(flavor = "multi_thread")]
async fn unchanged_large_values_are_found() {
    for binary in [false, true] {
        let mut mirror = Mirror::new(
            &format!("{DOCS}; create table full_docs (id int primary key, v text, big text);
                      alter table full_docs alter big set storage external; alter table full_docs replica identity full"),
            &["docs", "full_docs"],
        )
        .await;
        mirror.config.binary = binary;
        let mut stream = mirror.start();
        let value = big("a");
        for table in ["docs", "full_docs"] {
            mirror
                .source
                .run(&format!(
                    "insert into {table} select i, 'v', {value} from generate_series(1, 20) i;
                     update {table} set v = 'w' where id <= 5;
                     update {table} set id = id + 100 where id between 6 and 8;
                     begin; insert into {table} values (50, 'x', {value}); update {table} set v = 'y' where id = 50;
                     update {table} set id = 51 where id = 50; update {table} set v = 'z' where id = 51; commit;
                     begin; update {table} set big = {b} where id = 9; update {table} set v = 'u' where id = 9; commit;
                     begin; update {table} set big = 'small' where id = 10; update {table} set v = 'u' where id = 10; commit;
                     update {table} set id = 200, v = 'k' where id = 11; update {table} set id = 201 where id = 200; delete from {table} where id = 201;
                     begin; update {table} set v = 'q' where id = 12; delete from {table} where id = 12; commit",
                    b = big("b")
                ))
                .await;
        }
        mirror.caught_up(&mut stream).await;
        assert_eq!(mirror.assert_same(0, DOC, DOC_SINK).await, 19);
        assert_eq!(mirror.assert_same(1, DOC, DOC_SINK).await, 19);
        stream.stop().await;
    }
}

/// Key columns of every form of comparison: the reselect must find its row.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_are_found_by_keys_of_any_type() {
    let mirror = Mirror::new(
        "create type mood as enum ('sad', 'ok'); create domain code as varchar(10);
         create table odd (u uuid, m mood, c code, t timestamptz, \"N\"\"x\" numeric(6, 2), v int, big text,
             fixed char(9), bits bit(5), primary key (u, m, c, t, \"N\"\"x\", fixed, bits));
         alter table odd alter big set storage external",
        &["odd"],
    )
    .await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(&format!(
            "insert into odd values (gen_random_uuid(), 'ok', 'a\"b\\c,', now(), 12.5, 1, {}, 'abc', b'10110');
             update odd set v = 2",
            big("o")
        ))
        .await;
    mirror.caught_up(&mut stream).await;
    let row = "c || ' ' || v::text || ' ' || md5(big)";
    let sink = "concat(c, ' ', toString(v), ' ', lower(hex(MD5(big))))";
    assert_eq!(mirror.assert_same(0, row, sink).await, 1);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_is_a_barrier_between_what_was_and_what_comes() {
    let mirror = Mirror::new(ITEMS, &["items"]).await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into items select i, 'old', i from generate_series(1, 500) i;
              begin; insert into items values (600, 'same transaction, before', 1); truncate items;
              insert into items values (600, 'same transaction, after', 2), (1, 'new', 1); commit;
              insert into items values (2, 'new', 2)",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 3);
    let Report::Floor { id: 1, version } = stream.told(|report| matches!(report, Report::Floor { .. })).await
    else {
        panic!("the floor is told with the table's id")
    };
    let below = format!(
        "select count() from {} where _version < toUInt128('{version}')",
        mirror.sink.qualified("items")
    );
    assert_eq!(mirror.sink.query_one::<u64>(&below).await.unwrap(), 0);
    stream.stop().await;
}

/// A transaction that is larger than the memory streams through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_needs_no_more_memory_than_a_small_one() {
    const LIMIT: usize = 1 << 20;
    let mut mirror = Mirror::new(ITEMS, &["items"]).await;
    mirror.config.memory = MemoryBudget::new(LIMIT);
    mirror.config.limits = Limits { max_rows: 10_000, max_inserts_per_second: 1000, ..mirror.config.limits };
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into items select i, repeat('x', 100), i from generate_series(1, 60000) i")
        .await;
    let memory = mirror.config.memory.clone();
    let watching = tokio::spawn(async move {
        let mut most = 0;
        loop {
            most = most.max(memory.used());
            tokio::time::sleep(Duration::from_millis(1)).await;
            if most > 0 && memory.used() == 0 {
                return most;
            }
        }
    });
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 60_000);
    let most = watching.await.unwrap();
    assert!(most < LIMIT + (256 << 10), "{most}");
    stream.stop().await;
}

/// The slot was never told: the second run repeats everything, in other batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_from_an_earlier_position_changes_nothing() {
    let mut mirror = Mirror::new(&format!("{ITEMS}; {DOCS}"), &["items", "docs"]).await;
    let mut first = mirror.start_unconfirmed();
    mirror
        .source
        .run(&format!(
            "insert into items select i, 'v', i from generate_series(1, 300) i;
             insert into docs values (1, 'a', {}), (2, 'b', 'small'); update docs set v = 'c';
             delete from items where id > 250; update items set id = id + 1000 where id < 10",
            big("r")
        ))
        .await;
    mirror.caught_up(&mut first).await;
    let end = first.stop().await;
    mirror.source.run("update items set v = 'later' where id % 2 = 0; truncate docs; insert into docs values (1, 'n', null)").await;
    mirror.config.limits.max_rows = 17;
    let mut second = mirror.start_unconfirmed();
    second.reached(end).await;
    mirror.caught_up(&mut second).await;
    mirror.assert_same(0, ITEM, ITEM_SINK).await;
    assert_eq!(mirror.assert_same(1, DOC, DOC_SINK).await, 1);
    second.stop().await;
}

/// B1: the record of the row that is there in the end is older than the tombstone's.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_taken_from_a_transaction_that_deletes_it_stays() {
    let mirror = Mirror::new(ITEMS, &["items"]).await;
    let mut stream = mirror.start();
    let (first, second) = (mirror.source.session().await, mirror.source.session().await);
    first.batch_execute("begin; insert into items values (1, 'first', 1)").await.unwrap();
    let waiting = tokio::spawn(async move {
        second.batch_execute("insert into items values (1, 'second', 2)").await.unwrap();
    });
    // The second's record is written when it waits for the first.
    let blocked = "select count(*) from pg_locks where not granted and locktype = 'transactionid'
                    and pid in (select pid from pg_stat_activity where datname = current_database())";
    while mirror.source.sql.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.batch_execute("delete from items where id = 1; commit").await.unwrap();
    waiting.await.unwrap();
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 1);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_one_to_clickhouse_need_no_tombstone() {
    let mirror = Mirror::new("create table f (k float8 primary key, v int)", &["f"]).await;
    let mut stream = mirror.start();
    mirror.source.run("insert into f values ('-0', 1); update f set k = 0, v = 2").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, "v::text", "toString(v)").await, 1);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_arrive_in_their_table() {
    let mirror = Mirror::new(
        "create table items (id bigint primary key, v text, n int) partition by range (id);
         create table low partition of items for values from (0) to (100);
         create table high (n int, v text, id bigint not null);
         alter table items attach partition high for values from (100) to (1000)",
        &["items"],
    )
    .await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into items select i, 'v', i from generate_series(50, 150) i;
              update items set id = id + 200 where id < 60; delete from items where id = 99",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 100);
    stream.stop().await;
}

/// One bad table stops only itself, and is told before the position that leaves it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_go_on_does_not_stop_the_others() {
    let mirror = Mirror::new(
        &format!("{ITEMS}; create table times (id int primary key, t timestamp); create table shape (id int primary key, v int)"),
        &["items", "times", "shape"],
    )
    .await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into times values (1, now()); insert into times values (2, 'infinity');
              alter table shape alter v type text; insert into shape values (1, 'x');
              insert into items values (1, 'goes on', 1)",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 1);
    assert_eq!(stream.failed(), [(2, Code::ValueUnrepresentable)]);
    stream.told(|report| matches!(report, Report::ResyncNeeded { id: 3, .. })).await;
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_follows_tables_that_are_not_replicated_and_only_what_is_confirmed() {
    let mirror = Mirror::new(&format!("{ITEMS}; create table others (id int)"), &["items"]).await;
    let mut stream = mirror.start();
    mirror.source.run("insert into others select generate_series(1, 10000)").await;
    mirror.caught_up(&mut stream).await;
    let confirmed = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let end = mirror.wal_end().await;
    loop {
        let row = mirror.source.sql.query_one(confirmed, &[&mirror.config.slot]).await.unwrap();
        let now: Lsn = row.get::<_, &str>(0).parse().unwrap();
        if end.bytes_since(now) < 1000 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{now} of {end}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stream.stop().await;

    // Somebody who starts from before what is acknowledged would miss changes without a word.
    let behind = mirror.start().failure().await;
    assert_eq!(behind.code(), Code::SlotLost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_attempt_takes_the_slot_from_an_older_one_but_not_from_strangers() {
    let mut mirror = Mirror::new(ITEMS, &["items"]).await;
    mirror.config.application = format!("{APPLICATION}/0/2");
    let mut older = mirror.start_unconfirmed();
    mirror.source.run("insert into items values (1, 'a', 1)").await;
    mirror.caught_up(&mut older).await;

    let mut late = mirror.config.clone();
    std::mem::swap(&mut late, &mut mirror.config);
    mirror.config.application = format!("{APPLICATION}/0/1");
    assert_eq!(mirror.start().failure().await.code(), Code::LeaseLost);
    mirror.config.application = "somebody/else/0/9".into();
    let error = mirror.start().failure().await;
    assert_eq!(error.code(), Code::SlotInUse);
    assert!(error.message().contains("of user millrace from 127.0.0.1"), "{error}");

    mirror.config.application = format!("{APPLICATION}/0/3");
    let mut newer = mirror.start();
    assert_eq!(older.failure().await.code(), Code::SourceUnreachable);
    mirror.source.run("insert into items values (2, 'b', 2)").await;
    mirror.caught_up(&mut newer).await;
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 2);
    newer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_when_the_lease_has_passed() {
    let mirror = Mirror::new(ITEMS, &["items"]).await;
    let mut stream = mirror.start();
    mirror.source.run("insert into items values (1, 'a', 1)").await;
    mirror.caught_up(&mut stream).await;
    stream.lease.send_replace(tokio::time::Instant::now());
    mirror.source.run("insert into items values (2, 'b', 2)").await;
    let reports = Arc::clone(&stream.reports);
    assert_eq!(stream.failure().await.code(), Code::LeaseLost);
    assert!(!reports.lock().unwrap().is_empty());
    let count = format!("select count() from {}", mirror.sink.qualified("items"));
    assert_eq!(mirror.sink.query_one::<u64>(&count).await.unwrap(), 1);
}

/// After a failover it must be known how far rows may have been written.
#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_until_it_is_stored_that_they_may_be_written() {
    let mirror = Mirror::new(ITEMS, &["items"]).await;
    let mut stream = mirror.start();
    stream.announce.send_replace(Lsn::ZERO);
    mirror.source.run("insert into items values (1, 'a', 1)").await;
    let ahead = stream.told(|report| matches!(report, Report::Ahead { .. })).await;
    let Report::Ahead { lsn } = ahead else { unreachable!() };
    let count = format!("select count() from {}", mirror.sink.qualified("items"));
    assert_eq!(mirror.sink.query_one::<u64>(&count).await.unwrap(), 0);
    stream.announce.send_replace(Lsn(lsn.0 + 1));
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.sink.query_one::<u64>(&count).await.unwrap(), 1);
    stream.stop().await;
}

/// Otherwise its changes would be missing without a word.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_published_or_gone_are_told_at_the_start() {
    let mirror = Mirror::new(
        &format!("{ITEMS}; create table gone (id int primary key); create table out (id int primary key)"),
        &["items", "gone", "out"],
    )
    .await;
    mirror
        .source
        .run(&format!("alter publication \"{}\" drop table out; drop table gone", mirror.config.publication))
        .await;
    let mut stream = mirror.start();
    mirror.source.run("insert into items values (1, 'a', 1)").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(stream.failed(), [(2, Code::SourceTableMissing), (3, Code::PublicationMissing)]);
    assert_eq!(mirror.assert_same(0, ITEM, ITEM_SINK).await, 1);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_slots_and_publications_are_told() {
    let mut mirror = Mirror::new(ITEMS, &["items"]).await;
    mirror.config.publication = "nope".into();
    assert_eq!(mirror.start().failure().await.code(), Code::PublicationMissing);
    mirror.source.run(&format!("select pg_drop_replication_slot('{}')", mirror.config.slot)).await;
    assert_eq!(mirror.start().failure().await.code(), Code::SlotLost);
}
