//! One table that the destination does not take, and the others.

use millrace_replication::stream::Report;
use millrace_terms::Code;

use crate::mirror::Mirror;

/// With one insert at once for all tables, and the refused one tried for half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_waits_for_its_next_attempt_keeps_no_other_from_sending() {
    let ddl = "create table refused (id int primary key); create table taken (id int primary key)";
    let mut mirror = Mirror::new(ddl, &["refused", "taken"]).await;
    mirror.config.limits.max_concurrent_inserts = 1;
    let refused = mirror.sink.qualified(&mirror.plan(0).destination);
    mirror.sink.execute(&format!("alter table {refused} add constraint never check id < 0")).await.unwrap();
    let stream = mirror.start();
    mirror.source.run("insert into refused values (1)").await;
    stream.told(|report| matches!(report, Report::Waiting { id: 1, .. })).await;
    mirror.source.run("insert into taken values (1)").await;
    stream.told(|report| matches!(report, Report::Flushed { id: 2, .. })).await;
    assert_eq!(stream.failed(), [], "it still tries");

    mirror.sink.execute(&format!("alter table {refused} drop constraint never")).await.unwrap();
    stream.told(|report| matches!(report, Report::Flushed { id: 1, .. })).await;
    stream.stop().await;
}

/// What ClickHouse does not take for JSON is the table's fault: trying again would not help.
#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_no_json_fails_its_table_at_once() {
    let words = [
        "{",
        "no",
        "[1]",
        "\"a\"",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1}}",
        "{\"a\":[1,{\"b\":}]}",
        "{\"a\":1e999}",
        "{\"\\ud800\":1}",
    ];
    let tables: Vec<String> = (0..words.len()).map(|n| format!("t{n}")).collect();
    let ddl: Vec<String> =
        tables.iter().map(|table| format!("create table {table} (id int primary key, doc text)")).collect();
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mirror = Mirror::new(&ddl.join(";"), &names).await;
    for (table, word) in tables.iter().zip(words) {
        // The column that a user would have chosen to be JSON.
        let at = tables.iter().position(|name| name == table).unwrap();
        let destination = mirror.sink.qualified(&mirror.plan(at).destination);
        mirror.sink.execute(&format!("drop table {destination}")).await.unwrap();
        let create = format!(
            "create table {destination} (id Int32, doc JSON, _version UInt128, _is_deleted UInt8, _synced_at DateTime64(6))
             engine = ReplacingMergeTree(_version, _is_deleted) order by id"
        );
        mirror.sink.execute(&create).await.unwrap();
        mirror.source.run(&format!("insert into {table} values (1, '{word}')")).await;
    }
    let stream = mirror.start();
    for id in 1..=words.len() as i64 {
        let report = stream
            .told(|report| match report {
                Report::TableFailed { id: failed, .. } | Report::Flushed { id: failed, .. } => *failed == id,
                Report::Waiting { id: failed, .. } => *failed == id,
                _ => false,
            })
            .await;
        let word = words[id as usize - 1];
        match report {
            Report::TableFailed { error, .. } => {
                assert_eq!(error.code(), Code::ValueUnrepresentable, "{word}: {error}")
            }
            Report::Flushed { .. } => {}
            other => panic!("{word}: {other:?}"),
        }
    }
    stream.stop().await;
}
