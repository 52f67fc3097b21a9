//! Keys that PostgreSQL and ClickHouse compare differently. PostgreSQL sends the old key exactly when
//! its stored bytes change; whether that is another key is ClickHouse's to say.

use std::sync::Arc;

use millrace_replication::postgres::describe;
use millrace_replication::postgres::plan::{ColumnOptions, Options, plan};

use crate::mirror::{Mirror, options};

/// A key's type, a value, an equal one of other bytes, and others to move to and delete.
const KEYS: &[(&str, &str, &str, &str, &str)] = &[
    ("citext", "Ab", "aB", "other", "gone"),
    ("text collate blind", "Ab", "aB", "other", "gone"),
    ("bpchar", "a ", "a", "b  ", "c "),
    ("char(4)", "a", "a ", "b", "c"),
    ("varchar(9)", "a ", "a", "b", "c "),
    ("numeric", "1.0", "1.00", "2.50", "3"),
    ("numeric(9, 3)", "1.0", "1.000", "2.5", "3"),
    ("interval", "1 day", "24:00:00", "2 days", "3 days"),
    ("jsonb", "{\"a\": 1.0}", "{\"a\": 1.00}", "{\"a\": 2}", "{}"),
    ("numeric[]", "{1.0}", "{1.00}", "{2}", "{3}"),
    ("float8", "-0", "0", "1e300", "NaN"),
    ("float4", "-0", "0", "NaN", "-Infinity"),
    ("timetz", "10:00+00", "11:00+01", "12:00+00", "13:00+00"),
    (
        "uuid",
        "00000000-0000-0000-0000-00000000000a",
        "00000000-0000-0000-0000-00000000000A",
        "00000000-0000-0000-0000-00000000000b",
        "00000000-0000-0000-0000-00000000000c",
    ),
    ("bytea", "a", "\\x61", "b", "c"),
];

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_comparison_end_as_the_source_has_them() {
    let name = |nth: usize| format!("k{nth}");
    let mut ddl = "create extension citext; create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);".to_owned();
    for (nth, (kind, ..)) in KEYS.iter().enumerate() {
        ddl.push_str(&format!("create table {} (k {kind} primary key, v text);", name(nth)));
    }
    let names: Vec<String> = (0..KEYS.len()).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut mirror = Mirror::new(&ddl, &names).await;
    mirror.config.limits.max_inserts_per_second = 1000;
    let mut stream = mirror.start();
    for (table, (_, value, equal, other, gone)) in names.iter().zip(KEYS) {
        mirror
            .source
            .run(&format!(
                "insert into {table} values ('{value}', 'first'), ('{gone}', 'second');
                 update {table} set k = '{equal}', v = 'same key' where v = 'first';
                 update {table} set v = v || '!' where k = '{value}';
                 delete from {table} where k = '{gone}';
                 insert into {table} values ('{gone}', 'moves'); update {table} set k = '{other}', v = 'moved' where v = 'moves';
                 begin; update {table} set k = '{gone}' where v = 'moved'; update {table} set k = '{other}' where v = 'moved'; commit"
            ))
            .await;
    }
    mirror.caught_up(&mut stream).await;
    assert!(stream.failed().is_empty(), "{:?}", stream.failed());
    for (nth, (kind, ..)) in KEYS.iter().enumerate() {
        // Of 0.0 and -0.0, which are one key, either may be kept.
        assert_eq!(mirror.assert_same(nth, "v", "v").await, 2, "{kind}");
    }
    stream.stop().await;
}

/// The tombstone of the old key would tie with the row, and delete it.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_become_one_declared_decimal_are_one_key() {
    let mut mirror = Mirror::new("create table amounts (k numeric primary key, v text)", &["amounts"]).await;
    let session = mirror.source.session().await;
    let source = mirror.plan(0).source.clone();
    let shape = describe::describe(&session, &[source]).await.unwrap().remove(0);
    let kind = ColumnOptions { kind: "Decimal(20, 4)".into(), ..Default::default() };
    let asked = Options { columns: [("k".to_owned(), kind)].into(), ..options("declared") };
    let declared = plan(&shape, &asked).unwrap();
    mirror.sink.create_table(&declared, "").await.unwrap();
    mirror.config.tables[0].plan = Arc::new(declared);
    let mut stream = mirror.start();
    mirror
        .source
        .run("insert into amounts values (1.0, 'a'), (2, 'b'); update amounts set k = 1.00 where v = 'a'; update amounts set k = 1.000, v = 'c' where v = 'a'; update amounts set k = 3 where v = 'b'")
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, "trim_scale(k)::text || v", "concat(toString(k), v)").await, 2);
    stream.stop().await;
}

/// Several rows exchange their keys, inside a transaction and by way of a free one.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_swapped_end_where_the_source_has_them() {
    let mirror = Mirror::new("create table items (id int primary key, v text)", &["items"]).await;
    let mut stream = mirror.start();
    mirror.source.run("insert into items select i, 'v' || i from generate_series(1, 20) i").await;
    for round in 0..10 {
        let (a, b) = (1 + round, 20 - round);
        mirror
            .source
            .run(&format!(
                "begin; update items set id = -1 where id = {a}; update items set id = {a} where id = {b}; update items set id = {b} where id = -1; commit;
                 begin; delete from items where id = {a}; update items set id = {a} where id = {b}; insert into items values ({b}, 'new{round}'); commit;
                 update items set id = id + 100 where id = {a}; update items set id = id - 100 where id = {a} + 100"
            ))
            .await;
    }
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, "id::text || v", "concat(toString(id), v)").await, 20);
    stream.stop().await;
}
