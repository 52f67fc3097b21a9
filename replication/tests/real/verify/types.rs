//! Every type is the same on both sides, and every change of a value is seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_replication::postgres::plan::{ColumnOptions, Options};
use millrace_replication::types::OnUnrepresentable;
use millrace_replication::verify::{Kind, incomparable};

use super::{Checked, found};
use crate::types::compare::{self, planned, replicate};
use crate::types::pair::Pair;
use crate::types::random::Random;

/// Compares a table of every kind, and then one in which a column of every row is another row's.
async fn every_kind(depth: usize) {
    let pair = Pair::new().await;
    let mut random = Random::new(compare::seed());
    let samples = compare::every_kind(depth);
    pair.source.batch_execute(&compare::create_table("t", &samples)).await.unwrap();
    pair.source.batch_execute(&compare::insert("t", &samples, 30, &mut random)).await.unwrap();
    let plan = planned(&pair, "t", compare::options(OnUnrepresentable::Error)).await;
    replicate(&pair, &plan).await;
    let checked = Checked::new(&pair.source, plan.clone(), 3).await;
    let answer = checked.compare(&pair.source, &pair.sink).await;
    assert_eq!((answer.source_rows, answer.destination_rows, answer.unsettled), (30, 30, 0));
    assert_eq!(found(&answer.differences), []);

    // Of rows 0 to n the n-th column is that of another row, where that has another value.
    let table = pair.sink.qualified("t");
    let names: Vec<&str> = plan.columns.iter().skip(1).map(|column| column.destination.as_str()).collect();
    for (at, name) in names.iter().enumerate() {
        let (row, other) = (at % 15, at % 15 + 15);
        let sql = format!(
            "insert into {table} select * replace ((select any({name}) from (select {name} from {table} where id = {other})) as {name}, 2 as _version)
             from {table} final where id = {row} settings final = 1"
        );
        pair.sink.execute(&sql).await.unwrap();
    }
    let answer = checked.compare(&pair.source, &pair.sink).await;
    let seen: Vec<String> = found(&answer.differences).into_iter().map(|(_, _, columns)| columns).collect();
    let seen: Vec<&str> = seen.iter().flat_map(|columns| columns.split(',')).collect();
    // Two rows of a kind may be the same by chance, or NULL; hardly of many kinds.
    let missed: Vec<_> = names.iter().filter(|name| !seen.contains(name)).collect();
    assert!(missed.len() * 4 < names.len(), "not seen: {missed:?}");
    assert!(found(&answer.differences).iter().all(|(kind, ..)| *kind == Kind::Different));
}

#[tokio::test]
async fn every_type_is_equal_and_its_changes_are_found() {
    every_kind(0).await;
}

#[tokio::test]
async fn arrays_of_every_type_are_equal_and_their_changes_are_found() {
    every_kind(1).await;
    every_kind(2).await;
}

#[tokio::test]
async fn types_that_the_server_converts_are_compared_and_documents_are_named() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute(
            "create table t (id int primary key, f int, d int8, b bool, l text, j jsonb, e mood, n numeric, ts timestamptz);
             insert into t select i, i, i * 1000, i % 2 = 0, 'word ' || i % 3, '{\"a\": 1}', 'sad', i / 8.0, '2001-01-01' from generate_series(1, 20) i;
             insert into t (id) values (21)",
        )
        .await
        .unwrap();
    let column = |name: &str, kind: &str| {
        (name.to_owned(), ColumnOptions { name: format!("{name} it's"), kind: kind.to_owned() })
    };
    let columns = BTreeMap::from([
        column("f", "Float64"),
        column("d", "Decimal(30, 4)"),
        column("b", "UInt8"),
        column("l", "LowCardinality(String)"),
        column("j", "JSON"),
        column("n", "Decimal(20, 5)"),
        column("ts", "DateTime64(3, 'UTC')"),
    ]);
    let plan = planned(&pair, "t", Options { columns, ..compare::options(OnUnrepresentable::Error) }).await;
    replicate(&pair, &plan).await;
    let checked = Checked::new(&pair.source, plan.clone(), 1).await;
    let answer = checked.compare(&pair.source, &pair.sink).await;
    assert_eq!((found(&answer.differences), answer.source_rows), (vec![], 21));
    let named: Vec<_> = incomparable(&plan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, ["j"]);

    // A value that nobody can have sent: read back as what was sent, it would be the same.
    let table = pair.sink.qualified("t");
    let change = "select * replace (7.25 as `f it's`, 2 as _version)";
    pair.sink.execute(&format!("insert into {table} {change} from {table} where id = 7")).await.unwrap();
    let answer = checked.compare(&pair.source, &pair.sink).await;
    let lines = found(&answer.differences);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].1 == "7" && lines[0].2.contains('f'), "{lines:?}");
}

#[tokio::test]
async fn values_are_told_only_when_asked_for() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute("create table t (id int primary key, v text); insert into t values (1, 'secret')")
        .await
        .unwrap();
    let plan: Arc<_> = planned(&pair, "t", compare::options(OnUnrepresentable::Error)).await;
    let checked = Checked::new(&pair.source, plan, 1).await;
    let sides = checked.sides(&pair.source, &pair.sink);
    let silent = sides.compare(&checked.question(&checked.ranges[0], false)).await.unwrap();
    assert!(!format!("{silent:?}").contains("secret"));
    let told = sides.compare(&checked.question(&checked.ranges[0], true)).await.unwrap();
    assert_eq!(told.differences[0].told.source[0].value.as_deref(), Some("secret"));
}
