//! What the log tells of old rows: the whole row as its own key, and an identity that changes.

use millrace_replication::stream::Report;
use millrace_terms::Code;

use crate::mirror::Mirror;

const NOTES: &str = "create table notes (at timestamp, who text, n numeric(12, 3), f float8, tags text[], big text);
                     alter table notes alter big set storage external; alter table notes replica identity full";
const NOTE: &str = "concat_ws(' ', coalesce(at::text, '-'), coalesce(who, '-'), coalesce(n::text, '-'),
                    coalesce(f::text, '-'), coalesce(array_to_string(tags, ','), ''), coalesce(md5(big), '-'))";
const NOTE_SINK: &str = "concat(ifNull(formatDateTime(at, '%F %T', 'UTC'), '-'), ' ', ifNull(who, '-'), ' ',
                         ifNull(toDecimalString(n, 3), '-'), ' ', ifNull(toString(f), '-'), ' ',
                         arrayStringConcat(tags, ','), ' ', if(isNull(big), '-', lower(hex(MD5(big)))))";

/// A value that is stored out of line.
const BIG: &str = "(select string_agg(md5(i::text), '') from generate_series(1, 300) i)";

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_their_own() {
    for binary in [false, true] {
        let mut mirror = Mirror::new(NOTES, &["notes"]).await;
        mirror.config.binary = binary;
        let mut stream = mirror.start();
        mirror
            .source
            .run(&format!(
                "insert into notes select '2024-01-01'::timestamp + i * interval '1 hour', 'w' || i, i / 7.0, i * 1.5, array['a', 'b' || i], {BIG}
                     from generate_series(1, 60) i;
                 insert into notes values (null, null, null, null, null, null), (null, 'only', null, null, '{{}}', 'small');
                 update notes set who = 'changed' where n < 3;
                 update notes set n = null, f = null where f = 60;
                 update notes set big = big || 'x' where f between 65 and 70;
                 update notes set who = 'found' where who = 'only';
                 delete from notes where f > 80; delete from notes where at is null and who is null;
                 begin; insert into notes values ('2025-01-01', 't', 1, 1, null, {BIG}); update notes set who = 'u' where at = '2025-01-01';
                 update notes set f = 2 where who = 'u'; commit;
                 begin; insert into notes values ('2026-01-01', 'gone'); delete from notes where who = 'gone'; commit;
                 update notes set f = '-0' where who = 'u'; update notes set f = 0 where who = 'u'; update notes set f = f, tags = tags where who = 'u'"
            ))
            .await;
        mirror.caught_up(&mut stream).await;
        assert_eq!(mirror.assert_same(0, NOTE, NOTE_SINK).await, 55);
        stream.stop().await;
    }
}

/// A sorting key of every type there is a comparison of.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_may_hold_any_type() {
    let mirror = Mirror::new(
        "create type mood as enum ('sad', 'ok');
         create table wide (a bool, b int2, c int8, d float4, e numeric, f numeric(70, 5), g char(5), h bytea, i uuid, j date,
             k timestamptz, l time, m interval, n jsonb, o mood, p inet, q int[], r timestamp[], s text[], t bit(3), u money, v json);
         alter table wide replica identity full",
        &["wide"],
    )
    .await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into wide (c) select generate_series(1, 20);
             insert into wide values (true, 1, 100, 1.5, 1.10, 2.5, 'ab', 'x', gen_random_uuid(), '2020-01-01', now(), '10:00', '1 day', '{\"a\": 1}',
                 'ok', '10.0.0.1/8', '{1,null}', array[now(), null], '{a,null}', b'101', 5, '{\"b\" :  2}');
             update wide set b = 2 where c = 100; update wide set q = '{3}', e = 1.1 where c = 100; update wide set n = '{\"a\": 1.0}' where c = 100;
             update wide set b = 7 where c < 10; delete from wide where c > 15 and c < 100; update wide set a = null, v = null where c = 100",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    let row = "c::text || ' ' || coalesce(b::text, '-') || ' ' || coalesce(e::text, '-') || ' ' || coalesce(n::text, '-')";
    let sink = "concat(toString(c), ' ', ifNull(toString(b), '-'), ' ', ifNull(e, '-'), ' ', ifNull(n, '-'))";
    assert_eq!(mirror.assert_same(0, row, sink).await, 16);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_arrive_from_partitions() {
    let mirror = Mirror::new(
        "create table notes (at int, v text) partition by range (at);
         create table low partition of notes for values from (0) to (100);
         create table high partition of notes for values from (100) to (200);
         alter table notes replica identity full; alter table low replica identity full; alter table high replica identity full",
        &["notes"],
    )
    .await;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into notes select i, 'v' from generate_series(0, 199) i; update notes set at = at + 100 where at < 50 and at > 40;
             delete from notes where at = 7",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    // Rows that moved onto equal ones are one with them.
    let (row, sink) = ("distinct at::text || v", "concat(toString(assumeNotNull(at)), assumeNotNull(v))");
    assert_eq!(mirror.assert_same(0, row, sink).await, 190);
    stream.stop().await;
}

const ITEMS: &str = "create table items (id bigint primary key, code text not null unique, v int)";
const ITEM: &str = "id::text || ' ' || code || ' ' || coalesce(v::text, '-')";
const ITEM_SINK: &str = "concat(toString(id), ' ', code, ' ', ifNull(toString(v), '-'))";

/// Deletes and key changes, each time another way.
const CHANGES: &str = "insert into items select i, 'c' || i, 1 from generate_series((select coalesce(max(id), 0) + 1 from items where id < 100000), (select coalesce(max(id), 0) + 10 from items where id < 100000)) i;
                       update items set v = v + 1 where id % 2 = 0; update items set id = id + 1000000 - (select count(*) from items) where id = (select min(id) from items);
                       delete from items where id = (select min(id) from items);";

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_may_change_while_the_key_stays() {
    let mirror = Mirror::new(ITEMS, &["items"]).await;
    let mut stream = mirror.start();
    for change in [
        "",
        "alter table items replica identity full",
        "alter table items replica identity using index items_pkey",
        "alter table items replica identity default",
        "alter table items replica identity full; alter table items drop constraint items_code_key",
        "alter table items add unique (id); alter table items drop constraint items_pkey; alter table items alter id set not null",
    ] {
        mirror.source.run(&format!("{CHANGES} {change}; {CHANGES}")).await;
        mirror.caught_up(&mut stream).await;
        assert!(stream.failed().is_empty(), "{change}: {:?}", stream.failed());
        mirror.assert_same(0, ITEM, ITEM_SINK).await;
    }
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_key_changes_says_so() {
    for (change, says) in [
        (
            "alter table items replica identity using index items_code_key",
            "another primary key or replica identity",
        ),
        (
            "alter table items replica identity nothing; insert into items values (7, 'x', 1)",
            "no primary key or replica identity",
        ),
        (
            "alter table items drop constraint items_pkey; insert into items values (7, 'x', 1)",
            "no primary key or replica identity",
        ),
        (
            "alter table items replica identity full; alter table items drop constraint items_pkey; insert into items values (1, 'x', 1)",
            "lost the primary key",
        ),
        (
            "alter table items replica identity full; alter table items drop constraint items_pkey, add primary key (code); insert into items values (1, 'x', 1)",
            "lost the primary key",
        ),
        (
            "alter table items replica identity full; alter table items drop constraint items_pkey, add primary key (id) deferrable; insert into items values (7, 'x', 1)",
            "lost the primary key",
        ),
        (
            "alter table items drop constraint items_pkey, add primary key (code)",
            "another primary key or replica identity",
        ),
    ] {
        let mirror =
            Mirror::new(&format!("{ITEMS}; create table other (id int primary key)"), &["items", "other"])
                .await;
        let mut stream = mirror.start();
        mirror.source.run(&format!("insert into items values (1, 'a', 1); {change}; insert into items values (8, 'y', 1); insert into other values (1)")).await;
        mirror.caught_up(&mut stream).await;
        let failed = stream.told(|report| matches!(report, Report::TableFailed { .. })).await;
        let Report::TableFailed { id, error } = failed else { unreachable!() };
        assert_eq!((id, error.code()), (1, Code::TableSchemaChanged), "{change}");
        assert!(error.message().contains(says), "{change}: {error}");
        assert!(!error.remedy().is_empty());
        assert_eq!(mirror.assert_same(1, "id::text", "toString(id)").await, 1);
        stream.stop().await;
    }
}
