//! Values that ClickHouse cannot hold, under each policy.

use millrace_replication::Block;
use millrace_replication::types::OnUnrepresentable;
use millrace_terms::Code;

use super::compare::{options, planned, replicate, stored};
use super::forms;
use super::pair::Pair;

/// Rows of which each holds one value, in one column, that cannot be held; and one that all can.
const TABLE: &str = "
create table t (id int primary key, d date not null, m timestamptz, n numeric(5, 2), ds date[] not null,
    deep int[][], safe int not null);
insert into t values
    (0, '2001-02-03', '2001-02-03 04:05:06+00', 1.5, '{2001-02-03,NULL}', '{{1,2},{3,NULL}}', 1),
    (1, 'infinity', null, null, '{}', '{}', 1),
    (2, '-infinity', null, null, '{}', null, 1),
    (3, '4714-11-24 BC', null, null, '{}', null, 1),
    (4, '5874897-12-31', null, null, '{}', null, 1),
    (5, '2001-01-01', 'infinity', null, '{}', null, 1),
    (6, '2001-01-01', '294276-12-31 23:59:59.999999+00', null, '{}', null, 1),
    (7, '2001-01-01', '0001-12-31 23:59:59.999999+00 BC', null, '{}', null, 1),
    (8, '2001-01-01', null, 'NaN', '{}', null, 1),
    (9, '2001-01-01', null, null, '{2001-01-01,infinity,-infinity}', null, 1),
    (10, '2001-01-01', null, null, '{{2001-01-01},{infinity}}', null, 1),
    (11, '2001-01-01', null, null, '{}', '{1,2}', 1),
    (12, '2001-01-01', null, null, '{}', '{{{1}}}', 1)";

const EXPRESSIONS: [&str; 6] = [
    "toNullable(toString(d))",
    "toNullable(toString(m))",
    "toNullable(toString(n))",
    "toNullable(toJSONString(arrayMap(x -> toString(x), ds)))",
    "toNullable(toJSONString(deep))",
    "toNullable(toString(safe))",
];

async fn made(policy: OnUnrepresentable) -> (Pair, std::sync::Arc<millrace_replication::table::TablePlan>) {
    let pair = Pair::new().await;
    pair.source.batch_execute(TABLE).await.unwrap();
    let plan = planned(&pair, "t", options(policy)).await;
    (pair, plan)
}

#[tokio::test]
async fn by_default_each_such_value_is_refused_in_both_forms() {
    let (pair, plan) = made(OnUnrepresentable::Error).await;
    for (rows, is_binary) in
        [(forms::binary(&pair.source, &plan).await, true), (forms::text(&pair.source, &plan).await, false)]
    {
        let mut block = Block::new(plan.clone(), pair.sink.time_range());
        for (id, row) in rows.iter().enumerate() {
            let fields = forms::fields(&plan, row, is_binary).into_iter().enumerate();
            let errors: Vec<_> =
                fields.filter_map(|(column, field)| block.push_field(column, field).err()).collect();
            block.abort_row();
            assert_eq!(errors.len(), usize::from(id > 0), "row {id}: {errors:?}");
            assert!(errors.iter().all(|error| error.code() == Code::ValueUnrepresentable), "{errors:?}");
            if id >= 10 {
                assert!(errors[0].remedy().contains("type: String"), "{:?}", errors[0]);
            }
        }
    }
}

#[tokio::test]
async fn as_null_they_are_counted() {
    let (pair, plan) = made(OnUnrepresentable::Null).await;
    let types: Vec<_> = plan.columns.iter().map(|column| column.clickhouse_type.as_str()).collect();
    assert_eq!(
        types,
        [
            "Int32",
            "Nullable(Date32)",
            "Nullable(DateTime64(6, 'UTC'))",
            "Nullable(Decimal(5, 2))",
            "Array(Nullable(Date32))",
            "Array(Array(Nullable(Int32)))",
            "Int32"
        ]
    );
    assert_eq!(replicate(&pair, &plan).await, 13);
    let rows = stored(&pair.sink, "t", &EXPRESSIONS.map(String::from)).await;
    let cell = |row: usize, column: usize| rows[row][column].as_deref();
    let first: Vec<_> = (0..6).map(|column| cell(0, column).unwrap()).collect();
    assert_eq!(
        first,
        ["2001-02-03", "2001-02-03 04:05:06.000000", "1.5", "[\"2001-02-03\",null]", "[[1,2],[3,null]]", "1"]
    );
    assert!((1..5).all(|row| cell(row, 0).is_none()));
    assert!((5..8).all(|row| cell(row, 1).is_none()) && cell(8, 2).is_none());
    assert_eq!(cell(9, 3), Some("[\"2001-01-01\",null,null]"), "elements become NULL by themselves");
    assert_eq!(
        cell(10, 3),
        Some("[]"),
        "an array of other dimensions is a NULL array, which is the empty one"
    );
    assert!((11..13).all(|row| cell(row, 4) == Some("[]")));
}

#[tokio::test]
async fn as_string_they_are_what_the_source_writes() {
    let (pair, plan) = made(OnUnrepresentable::String).await;
    let types: Vec<_> = plan.columns.iter().map(|column| column.clickhouse_type.as_str()).collect();
    assert_eq!(
        types,
        [
            "Int32",
            "String",
            "Nullable(String)",
            "Nullable(String)",
            "Array(Nullable(String))",
            "Array(Array(Nullable(Int32)))",
            "Int32"
        ]
    );
    // Arrays stay arrays: of other dimensions they are refused still.
    pair.source.batch_execute("delete from t where id >= 10").await.unwrap();
    assert_eq!(replicate(&pair, &plan).await, 0);
    let rows = stored(&pair.sink, "t", &EXPRESSIONS.map(String::from)).await;
    let rendered = forms::rendered(&pair.source, &plan).await;
    for (stored, rendered) in rows.iter().zip(&rendered) {
        assert_eq!(stored[..3], rendered[1..4]);
    }
    assert_eq!(rows[9][3].as_deref(), Some("[\"2001-01-01\",\"infinity\",\"-infinity\"]"));
}

#[tokio::test]
async fn keys_are_always_refused() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute(
            "create table k (id int, day date, primary key (id, day)); insert into k values (1, 'infinity')",
        )
        .await
        .unwrap();
    for policy in [OnUnrepresentable::Null, OnUnrepresentable::String] {
        let plan = planned(&pair, "k", options(policy)).await;
        assert_eq!(plan.columns[1].clickhouse_type, "Date32");
        let rows = forms::text(&pair.source, &plan).await;
        let mut block = Block::new(plan.clone(), pair.sink.time_range());
        let error = block.push_field(1, forms::fields(&plan, &rows[0], false)[1]).unwrap_err();
        assert_eq!(error.code(), Code::ValueUnrepresentable);
    }
}
