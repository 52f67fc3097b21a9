//! Single cases that random tables do not come by.

use super::compare::{options, planned, replicate, stored};
use super::forms;
use super::pair::Pair;
use millrace_replication::types::OnUnrepresentable;

/// A value that is larger than any buffer on its way.
const LARGE_BYTES: usize = 32 << 20;

#[tokio::test]
async fn a_text_of_32_mib_arrives() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute(&format!(
            "create table large (id int primary key, t text, b bytea, a text[]);
             insert into large
             select 1, t, convert_to(t, 'UTF8'), array[t, null] from (select repeat('0123456789abcde,', {}) as t) x",
            LARGE_BYTES / 16
        ))
        .await
        .unwrap();
    let plan = planned(&pair, "large", options(OnUnrepresentable::Error)).await;
    replicate(&pair, &plan).await;
    let expressions = ["t", "b", "a[1]"].map(|x| format!("toNullable(lower(hex(MD5({x})))) || length({x})"));
    let expected = pair.source.query_one("select md5(t) || length(t) from large", &[]).await.unwrap();
    let expected: String = expected.get(0);
    let rows = stored(&pair.sink, "large", &expressions).await;
    assert_eq!(rows[0], vec![Some(expected); 3]);
}

#[tokio::test]
async fn values_added_to_an_enum_need_no_change() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute("create table e (id int primary key, m mood, ms mood[]); insert into e values (1, 'sad', '{sad}')")
        .await
        .unwrap();
    let plan = planned(&pair, "e", options(OnUnrepresentable::Error)).await;
    assert_eq!(plan.columns[1].clickhouse_type, "LowCardinality(Nullable(String))");
    pair.source.batch_execute("alter type mood add value 'glad'").await.unwrap();
    pair.source.batch_execute("insert into e values (2, 'glad', '{glad,NULL}')").await.unwrap();
    replicate(&pair, &plan).await;
    let rows =
        stored(&pair.sink, "e", &["toNullable(m)".to_owned(), "toNullable(toJSONString(ms))".to_owned()])
            .await;
    let row = |m: &str, ms: &str| vec![Some(m.to_owned()), Some(ms.to_owned())];
    assert_eq!(rows, [row("sad", "[\"sad\"]"), row("glad", "[\"glad\",null]")]);
}

#[tokio::test]
async fn composites_of_nulls_are_not_null() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute(
            "create table c (id int primary key, p pair); insert into c values (1, row(null, null)), (2, null)",
        )
        .await
        .unwrap();
    let plan = planned(&pair, "c", options(OnUnrepresentable::Error)).await;
    replicate(&pair, &plan).await;
    let rows = stored(&pair.sink, "c", &["p".to_owned()]).await;
    assert_eq!(rows, [vec![Some("(,)".to_owned())], vec![None]]);
    assert_eq!(forms::rendered(&pair.source, &plan).await[0][1].as_deref(), Some("(,)"));
}
