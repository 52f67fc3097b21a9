//! ClickHouse types that users choose: what is stored is the value, or it is refused.

use millrace_replication::Block;
use millrace_replication::postgres::describe::describe;
use millrace_replication::postgres::plan::{ColumnOptions, Options, plan};
use millrace_replication::types::OnUnrepresentable;
use millrace_terms::{Code, TableName};

use super::compare::{options, planned, replicate, stored};
use super::forms;
use super::pair::Pair;

/// PostgreSQL type, ClickHouse type asked for and made, a value, and what ClickHouse shows of it.
const PAIRS: &[(&str, &str, &str, &str, &str)] = &[
    ("int2", "Int8", "Int8", "-128", "-128"),
    ("int2", "Float32", "Float32", "-32768", "-32768"),
    ("int4", "Int64", "Int64", "-2147483648", "-2147483648"),
    ("int4", "UInt8", "UInt8", "255", "255"),
    ("int4", "Float64", "Float64", "2147483647", "2147483647"),
    ("int4", "Decimal(12, 2)", "Decimal(12, 2)", "-2147483648", "-2147483648"),
    ("int8", "UInt64", "UInt64", "9223372036854775807", "9223372036854775807"),
    ("int8", "Int256", "Int256", "-9223372036854775808", "-9223372036854775808"),
    ("int8", "Decimal(38, 19)", "Decimal(38, 19)", "-9223372036854775808", "-9223372036854775808"),
    ("bool", "UInt8", "UInt8", "t", "1"),
    ("oid", "UInt64", "UInt64", "4294967295", "4294967295"),
    ("float4", "Float64", "Float64", "1.5", "1.5"),
    ("numeric", "Decimal(18,4)", "Decimal(18, 4)", "-12345678901234.5678", "-12345678901234.5678"),
    (
        "numeric",
        "Int256",
        "Int256",
        "-57896044618658097711785492504343953926634992332820282019728792003956564819968",
        "-57896044618658097711785492504343953926634992332820282019728792003956564819968",
    ),
    (
        "numeric",
        "UInt256",
        "UInt256",
        "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        "115792089237316195423570985008687907853269984665640564039457584007913129639935",
    ),
    (
        "numeric(30, 0)",
        "Int128",
        "Int128",
        "123456789012345678901234567890",
        "123456789012345678901234567890",
    ),
    ("numeric(10, 2)", "String", "String", "12.30", "12.30"),
    ("text", "LowCardinality(String)", "LowCardinality(String)", "x", "x"),
    ("int4", "LowCardinality(String)", "LowCardinality(String)", "7", "7"),
    ("float8", "String", "String", "1e+20", "1e+20"),
    ("bool", "String", "String", "t", "t"),
    ("inet", "String", "String", "10.0.0.1", "10.0.0.1"),
    ("json", "JSON", "JSON", "{\"a\": {\"b\": 1}}", "{\"a\":{\"b\":1}}"),
    ("jsonb", "JSON", "JSON", "{\"a\": [1, 2]}", "{\"a\":[1,2]}"),
    ("date", "Date", "Date", "2149-06-06", "2149-06-06"),
    ("date", "String", "String", "infinity", "infinity"),
    (
        "timestamp",
        "DateTime64(3)",
        "DateTime64(3, 'UTC')",
        "2001-02-03 04:05:06.789",
        "2001-02-03 04:05:06.789",
    ),
    (
        "timestamptz",
        "DateTime64(9)",
        "DateTime64(9, 'UTC')",
        "2001-02-03 04:05:06.789012+00",
        "2001-02-03 04:05:06.789012000",
    ),
    ("timestamptz", "DateTime64(0)", "DateTime64(0, 'UTC')", "1901-02-03 04:05:06+00", "1901-02-03 04:05:06"),
    ("timestamptz", "DateTime", "DateTime('UTC')", "2106-02-07 06:28:15+00", "2106-02-07 06:28:15"),
    ("timestamptz", "String", "String", "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
    ("time", "Time64(6)", "Time64(6)", "24:00:00", "24:00:00.000000"),
    ("time", "Time64(3)", "Time64(3)", "01:02:03.456", "01:02:03.456"),
    ("inet", "IPv4", "IPv4", "192.168.0.1", "192.168.0.1"),
    ("cidr", "IPv6", "IPv6", "2001:db8::1/128", "2001:db8::1"),
    ("int4[]", "Array(Int64)", "Array(Nullable(Int64))", "{1,NULL}", "[1,NULL]"),
    ("int4[]", "Array(Array(Int32))", "Array(Array(Nullable(Int32)))", "{{1},{2}}", "[[1],[2]]"),
    ("int4[]", "String", "String", "[0:0][1:1][1:1]={{{7}}}", "[0:0][1:1][1:1]={{{7}}}"),
    ("numeric[]", "Array(Decimal(9, 2))", "Array(Nullable(Decimal(9, 2)))", "{1.25}", "[1.25]"),
    (
        "text[]",
        "Array(LowCardinality(String))",
        "Array(LowCardinality(Nullable(String)))",
        "{a,NULL}",
        "['a',NULL]",
    ),
];

/// PostgreSQL type, ClickHouse type, and a value that it cannot hold.
const REFUSED: &[(&str, &str, &str)] = &[
    ("int4", "UInt32", "-1"),
    ("int4", "Int16", "32768"),
    ("int8", "Int32", "-2147483649"),
    ("numeric", "Decimal(9, 2)", "1.001"),
    ("numeric", "Decimal(9, 2)", "12345678"),
    ("numeric", "Decimal(9, 2)", "Infinity"),
    ("numeric", "UInt64", "18446744073709551616"),
    ("numeric", "Int64", "0.5"),
    ("date", "Date", "1969-12-31"),
    ("date", "Date", "2149-06-07"),
    ("timestamp", "DateTime64(3)", "2001-02-03 04:05:06.7891"),
    ("timestamp", "DateTime64(9)", "2262-04-12 00:00:00"),
    ("timestamp", "DateTime", "2001-02-03 04:05:06.5"),
    ("timestamp", "DateTime", "1969-12-31 23:59:59"),
    ("time", "Time64(0)", "01:02:03.5"),
    ("inet", "IPv4", "192.168.0.1/24"),
    ("inet", "IPv4", "::1"),
    ("inet", "IPv6", "192.168.0.1"),
    ("inet", "IPv6", "::1/64"),
];

fn asked(columns: impl Iterator<Item = &'static str>) -> Options {
    let named = columns
        .enumerate()
        .map(|(at, kind)| (format!("c{at}"), ColumnOptions { name: String::new(), kind: kind.to_owned() }));
    Options { columns: named.collect(), ..options(OnUnrepresentable::Error) }
}

#[tokio::test]
async fn what_is_chosen_holds_the_value() {
    let pair = Pair::new().await;
    for (table, not_null) in [("strict", " not null"), ("loose", "")] {
        let columns: Vec<_> =
            PAIRS.iter().enumerate().map(|(at, (of, ..))| format!("c{at} {of}{not_null}")).collect();
        let values: Vec<_> = PAIRS.iter().map(|(.., value, _)| format!("'{value}'")).collect();
        let nulls = format!("insert into {table} (id) values (2)");
        pair.source
            .batch_execute(&format!(
                "create table {table} (id int primary key, {}); insert into {table} values (1, {}); {}",
                columns.join(", "),
                values.join(", "),
                if not_null.is_empty() { nulls.as_str() } else { "" },
            ))
            .await
            .unwrap();
        let plan = planned(&pair, table, asked(PAIRS.iter().map(|(_, kind, ..)| *kind))).await;
        for (column, (_, asked, made, ..)) in plan.columns[1..].iter().zip(PAIRS) {
            match made.strip_prefix("LowCardinality(") {
                _ if !not_null.is_empty() || made.starts_with("Array") => {
                    assert_eq!(column.clickhouse_type, *made, "{asked}");
                }
                Some(inner) => {
                    assert_eq!(
                        column.clickhouse_type,
                        format!("LowCardinality(Nullable({inner})"),
                        "{asked}"
                    );
                }
                None => assert_eq!(column.clickhouse_type, format!("Nullable({made})"), "{asked}"),
            }
        }
        replicate(&pair, &plan).await;
        let expressions: Vec<_> = (0..PAIRS.len()).map(|at| format!("toNullable(toString(c{at}))")).collect();
        let rows = stored(&pair.sink, table, &expressions).await;
        for (stored, (of, chosen, .., value, shown)) in rows[0].iter().zip(PAIRS) {
            assert_eq!(stored.as_deref(), Some(*shown), "{value} of {of} as {chosen}");
        }
        for (stored, (of, ..)) in rows.iter().skip(1).flatten().zip(PAIRS) {
            let array = of.ends_with("[]") && stored.is_some();
            assert_eq!(stored.as_deref(), array.then_some("[]"), "NULL of {of}");
        }
    }
}

#[tokio::test]
async fn what_it_does_not_hold_is_refused_in_both_forms() {
    let pair = Pair::new().await;
    let columns: Vec<_> = REFUSED.iter().enumerate().map(|(at, (of, ..))| format!("c{at} {of}")).collect();
    let values: Vec<_> = REFUSED.iter().map(|(.., value)| format!("'{value}'")).collect();
    pair.source
        .batch_execute(&format!(
            "create table t (id int primary key, {}); insert into t values (1, {})",
            columns.join(", "),
            values.join(", ")
        ))
        .await
        .unwrap();
    let plan = planned(&pair, "t", asked(REFUSED.iter().map(|(_, kind, _)| *kind))).await;
    for (rows, is_binary) in
        [(forms::binary(&pair.source, &plan).await, true), (forms::text(&pair.source, &plan).await, false)]
    {
        let fields = forms::fields(&plan, &rows[0], is_binary);
        for (at, (of, chosen, value)) in REFUSED.iter().enumerate() {
            let mut block = Block::new(plan.clone(), pair.sink.time_range());
            let pushed = block.push_field(at + 1, fields[at + 1]).map_err(|error| error.code());
            assert_eq!(pushed, Err(Code::ValueUnrepresentable), "{value} of {of} as {chosen}");
        }
    }
}

#[tokio::test]
async fn what_would_lose_something_is_no_choice() {
    let pair = Pair::new().await;
    pair.source
        .batch_execute(
            "create table t (id int primary key, c0 timestamptz, c1 price, c2 jsonb not null unique)",
        )
        .await
        .unwrap();
    let shape = describe(&pair.source, &[TableName::new("public", "t")]).await.unwrap().remove(0);
    for (column, kind, says) in [
        ("c0", "DateTime64(6, 'Europe/Berlin')", "DateTime64(S, 'UTC')"),
        ("c1", "Float64", "Decimal(P, S)"),
        ("c2", "Map(String, String)", "JSON (not in the key)"),
        ("id", "JSON", "Int8 to Int256"),
        ("id", "Nullable(Int64)", "UInt8 to UInt256"),
        ("id", "Int64) ENGINE = Null", "String"),
    ] {
        let column_options = ColumnOptions { name: String::new(), kind: kind.to_owned() };
        let columns = [(column.to_owned(), column_options)].into();
        let error = plan(&shape, &Options { columns, ..options(OnUnrepresentable::Error) }).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(column) && error.message().contains(kind), "{error}");
        assert!(error.remedy().contains(says), "{}", error.remedy());
    }
}
