//! Ranges hold the same rows on both sides whatever the key, and what is wrong in them is found exactly.

use std::sync::Arc;

use millrace_replication::table::TablePlan;
use millrace_replication::types::OnUnrepresentable;
use millrace_replication::verify::Kind;

use super::{Checked, found};
use crate::types::compare::{self, planned, replicate};
use crate::types::pair::Pair;

/// A key's type, and an expression of `i` for its values.
const KEYS: &[(&str, &str)] = &[
    ("smallint", "i"),
    ("int", "i * 1000 - 300000"),
    ("bigint", "i * 10000000000 - 3000000000000"),
    ("oid", "(i * 7000000)::oid"),
    ("numeric(20, 3)", "i / 8.0 - 30"),
    ("numeric", "i / 7.0"),
    ("text", "case i % 4 when 0 then upper(md5(i::text)) when 1 then 'ä' || i else md5(i::text) end"),
    ("text collate \"C\"", "md5(i::text) || '\\ it''s'"),
    ("varchar(40)", "md5(i::text)"),
    ("char(9)", "left(md5(i::text), 9)"),
    ("citext", "case i % 2 when 0 then upper(md5(i::text)) else md5(i::text) end"),
    ("uuid", "md5(i::text)::uuid"),
    ("bytea", "decode(md5(i::text), 'hex')"),
    ("date", "'2000-01-01'::date + i * 10 - 500"),
    ("timestamp", "'2000-01-01'::timestamp + i * interval '7.000001 hours'"),
    ("timestamptz", "'2000-01-01'::timestamptz + i * interval '7.000001 hours'"),
    ("time", "'00:00'::time + i * interval '1.5 seconds'"),
    ("interval", "(1000 + i) * interval '1 hour'"),
    ("inet", "'10.0.0.0'::inet + i * 77"),
    ("float8", "i / 7.0 - 20"),
    ("xid8", "(i * 3)::text::xid8"),
    ("int[]", "array[i % 10, i]"),
    ("jsonb", "jsonb_build_object('a', i)"),
    ("price", "i / 8.0"),
    ("words", "md5(i::text)"),
    ("int4range", "int4range(1000 + i, 1005 + i)"),
];

async fn table(pair: &Pair, name: &str, columns: &str, key: &str, values: &str) -> Arc<TablePlan> {
    let sql = format!(
        "create table {name} ({columns}, v text, primary key ({key})); insert into {name} select {values}, 'v' || i from generate_series(1, 300) i; analyze {name}"
    );
    pair.source.batch_execute(&sql).await.unwrap();
    let plan = planned(pair, name, compare::options(OnUnrepresentable::Error)).await;
    replicate(pair, &plan).await;
    plan
}

/// Spoils the first row, the last one and some in between; then mends them.
async fn spoil_and_mend(pair: &Pair, plan: &Arc<TablePlan>, checked: &Checked) {
    let answer = checked.compare(&pair.source, &pair.sink).await;
    assert_eq!(found(&answer.differences), [], "{}", plan.destination);
    assert_eq!((answer.source_rows, answer.destination_rows), (300, 300), "{}", plan.destination);
    let table = pair.sink.qualified(&plan.destination);
    let rows = |list: &str| format!("v in ({list})");
    for (sql, rows) in [
        ("delete from {table} where {rows}", rows("'v1', 'v77', 'v300'")),
        (
            "insert into {table} select * replace ('changed' as v, 5 as _version) from (select * from {table} final where {rows})",
            rows("'v2', 'v150', 'v299'"),
        ),
    ] {
        pair.sink.execute(&sql.replace("{table}", &table).replace("{rows}", &rows)).await.unwrap();
    }
    let gone = "delete from {name} where v in ('v3', 'v151', 'v298')";
    pair.source.batch_execute(&gone.replace("{name}", &plan.source.to_sql())).await.unwrap();
    let answer = checked.compare(&pair.source, &pair.sink).await;
    let lines = found(&answer.differences);
    let count = |kind| lines.iter().filter(|(of, ..)| *of == kind).count();
    assert_eq!(
        (count(Kind::Missing), count(Kind::Extra), count(Kind::Different), answer.unsettled),
        (3, 3, 3, 0),
        "{} {lines:?}",
        plan.destination
    );
    assert!(lines.iter().all(|(kind, _, columns)| (*kind == Kind::Different) == (columns == "v")));
    checked.mend(&pair.source, &pair.sink).await;
    let answer = checked.compare(&pair.source, &pair.sink).await;
    assert_eq!(found(&answer.differences), [], "{} is mended", plan.destination);
    assert_eq!((answer.source_rows, answer.destination_rows), (297, 297));
}

#[tokio::test]
async fn keys_of_every_type_are_cut_alike_on_both_sides() {
    let pair = Pair::new().await;
    for (at, (kind, values)) in KEYS.iter().enumerate() {
        println!("{kind}");
        let name = format!("k{at}");
        let plan = table(&pair, &name, &format!("k {kind}"), "k", values).await;
        let checked = Checked::new(&pair.source, plan.clone(), 6).await;
        let is_cut = !matches!(*kind, "float8" | "int[]");
        assert_eq!(checked.ranges.len() > 3, is_cut, "{kind}: {} ranges", checked.ranges.len());
        spoil_and_mend(&pair, &plan, &checked).await;
    }
}

#[tokio::test]
async fn keys_of_several_columns_are_cut_by_all_of_them() {
    let pair = Pair::new().await;
    for (name, columns, key, values) in [
        ("two", "a int, b text", "a, b", "i % 2, md5(i::text)"),
        (
            "four",
            "a date, b int, c uuid, d text",
            "a, b, c, d",
            "'2000-01-01'::date + i % 2, i % 3, md5(i::text)::uuid, 'x'",
        ),
        ("odd", "f bool, b bigint", "f, b", "i % 2 = 0, i"),
        ("turned", "b int, a text", "a, b", "i, 'same'"),
    ] {
        let plan = table(&pair, name, columns, key, values).await;
        let checked = Checked::new(&pair.source, plan.clone(), 6).await;
        assert!(checked.ranges.len() > 3, "{name}: {}", checked.ranges.len());
        spoil_and_mend(&pair, &plan, &checked).await;
    }
}

#[tokio::test]
async fn partitioned_tables_are_compared_whole() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute("create table p (id int, v text, primary key (id)) partition by range (id); create table p1 partition of p for values from (0) to (150); create table p2 partition of p for values from (150) to (1000); insert into p select i, 'v' || i from generate_series(1, 300) i; analyze p")
        .await
        .unwrap();
    let plan = planned(&pair, "p", compare::options(OnUnrepresentable::Error)).await;
    replicate(&pair, &plan).await;
    let checked = Checked::new(&pair.source, plan.clone(), 6).await;
    assert!(checked.ranges.len() > 3);
    spoil_and_mend(&pair, &plan, &checked).await;
}

#[tokio::test]
async fn tables_whose_rows_are_their_keys_are_compared_as_sets() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute("create table w (a int, b text); alter table w replica identity full; insert into w values (1, 'x'), (1, 'x'), (null, ''), (null, null), (2, 'NULL')")
        .await
        .unwrap();
    let plan = planned(&pair, "w", compare::options(OnUnrepresentable::Error)).await;
    replicate(&pair, &plan).await;
    let checked = Checked::new(&pair.source, plan.clone(), 3).await;
    assert_eq!(found(&checked.compare(&pair.source, &pair.sink).await.differences), []);
    pair.source.batch_execute("delete from w where b is null; insert into w values (3, null)").await.unwrap();
    let lines = found(&checked.compare(&pair.source, &pair.sink).await.differences);
    let kinds: Vec<_> = lines.iter().map(|(kind, key, _)| (*kind, key.as_str())).collect();
    assert_eq!(kinds, [(Kind::Missing, "3/NULL"), (Kind::Extra, "NULL/NULL")]);
    checked.mend(&pair.source, &pair.sink).await;
    assert_eq!(found(&checked.compare(&pair.source, &pair.sink).await.differences), []);
}

#[tokio::test]
async fn rows_of_versions_that_no_log_has_reached_are_found_and_mended() {
    let pair = Pair::new().await;
    let plan = table(&pair, "t", "k int", "k", "i").await;
    let checked = Checked::new(&pair.source, plan.clone(), 1).await;
    let table = pair.sink.qualified("t");
    // Equal to look at, but no change would ever be seen; and one that is not on the source.
    let future = "select * replace (toUInt128('170141183460469231731687303715884105727') as _version)";
    pair.sink
        .execute(&format!("insert into {table} {future} from (select * from {table} where k = 5)"))
        .await
        .unwrap();
    pair.sink
        .execute(&format!(
            "insert into {table} {} from (select * from {table} where k = 6)",
            future.replace("as _version", "as _version, 1000 as k")
        ))
        .await
        .unwrap();
    let lines = found(&checked.compare(&pair.source, &pair.sink).await.differences);
    let expected = [(Kind::Extra, "1000", "_version"), (Kind::Different, "5", "_version")];
    assert_eq!(lines, expected.map(|(kind, key, columns)| (kind, key.to_owned(), columns.to_owned())));
    checked.mend(&pair.source, &pair.sink).await;
    assert_eq!(found(&checked.compare(&pair.source, &pair.sink).await.differences), []);
}
