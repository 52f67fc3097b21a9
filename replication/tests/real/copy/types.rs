//! Every type, NULLs everywhere, by both forms, compared with the source.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use millrace_replication::block::{Block, Operation, Stamp};
use millrace_replication::clickhouse::Clickhouse;
use millrace_replication::postgres::Session;
use millrace_replication::table::TablePlan;
use millrace_replication::types::Field;
use millrace_terms::{Code, TableName};

use super::work::{copy_all, copy_one, insert_id, partitions, prepare, version};
use crate::servers::{Source, destination};

/// A type with values of it, and how a value `x` is written as one text by either server.
struct Sample {
    name: &'static str,
    kind: &'static str,
    /// SQL literals of PostgreSQL.
    values: &'static [&'static str],
    source: &'static str,
    sink: &'static str,
}

const fn sample(
    name: &'static str,
    kind: &'static str,
    values: &'static [&'static str],
    source: &'static str,
    sink: &'static str,
) -> Sample {
    Sample { name, kind, values, source, sink }
}

const TEXTS: &[&str] = &["", "a", "it''s", "\"q\" \\ {,}", "NULL", "größe ☃ 𝄞", "\t\n\r\u{1}\u{7f}", " x  "];
/// PostgreSQL's own text of a type is what is to arrive.
const AS_TEXT: &str = "format('%s', x)";

const SAMPLES: &[Sample] = &[
    sample("bool", "bool", &["true", "false"], "x::int4::text", "toString(toUInt8(x))"),
    sample("int2", "int2", &["0", "-32768", "32767"], "x::text", "toString(x)"),
    sample("int4", "int4", &["0", "-2147483648", "2147483647"], "x::text", "toString(x)"),
    sample("int8", "int8", &["0", "-9223372036854775808", "9223372036854775807"], "x::text", "toString(x)"),
    sample(
        "float4",
        "float4",
        &["0", "-0", "1.5", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity"],
        "encode(float4send(x), 'hex')",
        "leftPad(lower(hex(reinterpretAsUInt32(x))), 8, '0')",
    ),
    sample(
        "float8",
        "float8",
        &["0", "-0", "0.1", "1.7976931348623157e308", "5e-324", "NaN", "Infinity", "-Infinity"],
        "encode(float8send(x), 'hex')",
        "leftPad(lower(hex(reinterpretAsUInt64(x))), 16, '0')",
    ),
    sample(
        "decimal9",
        "numeric(9,2)",
        &["0", "-9999999.99", "9999999.99", "12.3"],
        "trim_scale(x)::text",
        "toString(x)",
    ),
    sample(
        "decimal18",
        "numeric(18,9)",
        &["0", "-999999999.999999999", "0.000000001"],
        "trim_scale(x)::text",
        "toString(x)",
    ),
    sample(
        "decimal38",
        "numeric(38,10)",
        &["0", "-1234567890123456789012345678.0123456789", "1e27"],
        "trim_scale(x)::text",
        "toString(x)",
    ),
    sample(
        "decimal76",
        "numeric(76,38)",
        &["0", "-12345678901234567890123456789012345678.12345678901234567890123456789012345678", "1e-38"],
        "trim_scale(x)::text",
        "toString(x)",
    ),
    sample(
        "numeric",
        "numeric",
        &["0", "0.000", "-1.50", "1e100", "1e-50", "NaN", "Infinity", "-Infinity", "10000", "12345678.00001"],
        "x::text",
        "x",
    ),
    sample("text", "text", TEXTS, "x", "x"),
    sample("varchar", "varchar(40)", TEXTS, "x::text", "x"),
    sample("bpchar", "char(12)", TEXTS, AS_TEXT, "toString(x)"),
    sample("name", "name", TEXTS, "x::text", "x"),
    sample("bytea", "bytea", &["", "\\x00ff", "\\xdeadbeef5c22"], "encode(x, 'hex')", "lower(hex(x))"),
    sample("json", "json", &["null", "{ \"a\" : [1, 2.50, \"x\\u0041\"] , \"a\":1}", "\"\""], "x::text", "x"),
    sample("jsonb", "jsonb", &["null", "{ \"b\": [1, 2.50, \"\\\"\"], \"a\": {} }", "[]"], "x::text", "x"),
    sample(
        "uuid",
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000000",
            "550e8400-e29b-41d4-a716-446655440000",
            "ffffffff-ffff-ffff-ffff-fffffffffffe",
        ],
        "x::text",
        "toString(x)",
    ),
    sample(
        "date",
        "date",
        &["1970-01-01", "1900-01-01", "2024-02-29", "2299-12-31", "2262-04-12"],
        "to_char(x, 'YYYY-MM-DD')",
        "toString(x)",
    ),
    sample(
        "timestamp",
        "timestamp",
        &[
            "1970-01-01",
            "1969-12-31 23:59:59.999999",
            "2024-02-29 12:34:56.789",
            "1900-01-01",
            "2299-12-31 23:59:59.999999",
        ],
        "to_char(x, 'YYYY-MM-DD HH24:MI:SS.US')",
        "toString(x)",
    ),
    sample(
        "timestamptz",
        "timestamptz",
        &["1970-01-01 00:00:00Z", "2024-02-29 12:34:56.789+05:30", "2299-12-31 23:59:59.999999Z"],
        "to_char(x at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
        "toString(x)",
    ),
    sample("mood", "mood", &["sad", "it''s ok", ""], "x::text", "toString(x)"),
    sample("price", "price", &["0", "12.30"], "trim_scale(x::numeric)::text", "toString(x)"),
    sample("time", "time", &["00:00:00", "23:59:59.999999", "24:00:00"], AS_TEXT, "toString(x)"),
    sample("timetz", "timetz", &["00:00:00+00", "23:59:59.5-08:30"], AS_TEXT, "toString(x)"),
    sample(
        "interval",
        "interval",
        &["1 year 2 mons 3 days 04:05:06.7", "-1 day", "0"],
        AS_TEXT,
        "toString(x)",
    ),
    sample("inet", "inet", &["10.0.0.1", "10.0.0.0/8", "::1"], AS_TEXT, "toString(x)"),
    sample("int4range", "int4range", &["[1,5)", "empty", "(,)"], AS_TEXT, "toString(x)"),
    sample("bits", "varbit", &["", "10101"], AS_TEXT, "toString(x)"),
    sample("money", "money", &["0", "-1234.56"], AS_TEXT, "toString(x)"),
    sample("point", "point", &["(1.5,-2)"], AS_TEXT, "toString(x)"),
    sample("xml", "xml", &["<a>x &amp; y</a>"], AS_TEXT, "toString(x)"),
    sample("oid", "oid", &["0", "4294967295"], AS_TEXT, "toString(x)"),
    sample("internal_char", "\"char\"", &["a", ""], AS_TEXT, "toString(x)"),
    sample("tsvector", "tsvector", &["'a':1 'b''c'"], AS_TEXT, "toString(x)"),
    sample("pair", "pair", &["(1,x)", "(,)", "(1,\"a\"\"b,\")"], AS_TEXT, "toString(x)"),
];

/// A table with each type as NOT NULL, nullable and array column: every value, and NULLs.
async fn make_table(session: &Session) {
    let mut columns = "id int8 primary key".to_owned();
    let rows = SAMPLES.iter().map(|sample| sample.values.len()).max().unwrap() + 1;
    for Sample { name, kind, .. } in SAMPLES {
        write!(columns, ", {name}_full {kind} not null, {name}_null {kind}, {name}_list {kind}[]").unwrap();
    }
    session
        .batch_execute(&format!(
            "create type public.mood as enum ('sad', 'it''s ok', '');
             create domain public.price as numeric(10,2);
             create type public.pair as (a int4, b text);
             set search_path = public;
             create table public.everything ({columns})"
        ))
        .await
        .unwrap();
    for row in 0..rows {
        let mut values = row.to_string();
        for Sample { kind, values: literals, .. } in SAMPLES {
            let value = format!("'{}'::{kind}", escaped(literals[row % literals.len()]));
            let nullable = if row % 3 == 2 { "null" } else { &value };
            let list = match row % 4 {
                0 => "null".to_owned(),
                1 => format!("'{{}}'::{kind}[]"),
                _ => format!("array[{value}, null, '{}'::{kind}]", escaped(literals[0])),
            };
            write!(values, ", {value}, {nullable}, {list}").unwrap();
        }
        session.batch_execute(&format!("insert into public.everything values ({values})")).await.unwrap();
    }
    session.batch_execute("set search_path = ''").await.unwrap();
}

/// A literal of the samples, whose quotes may be doubled already.
fn escaped(literal: &str) -> String {
    literal.replace("''", "'").replace('\'', "''")
}

/// All values as texts: `~` for NULL, lists in brackets.
async fn source_texts(session: &Session) -> Vec<String> {
    let hex = |expression: &str| format!("coalesce(encode(convert_to({expression}, 'UTF8'), 'hex'), '~')");
    let expressions: Vec<_> = SAMPLES
        .iter()
        .flat_map(|Sample { name, source, .. }| {
            let scalar = |column: String| {
                format!(
                    "(select case when num_nulls(x) = 1 then '~' else {} end from (values ({column})) v(x))",
                    hex(source)
                )
            };
            let element = format!("case when num_nulls(x) = 1 then '~' else {} end", hex(source));
            [
                scalar(format!("{name}_full")),
                scalar(format!("{name}_null")),
                format!(
                    "(select '[' || coalesce(string_agg({element}, ',' order by n), '') || ']' \
                     from generate_subscripts({name}_list, 1) n cross join lateral (values ({name}_list[n])) v(x))"
                ),
            ]
        })
        .collect();
    let sql = format!("select {} from public.everything order by id", expressions.join(" || ' ' || "));
    session.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn sink_texts(sink: &Clickhouse) -> Vec<String> {
    let hex = |expression: &str| format!("if(isNull(x), '~', lower(hex(assumeNotNull({expression}))))");
    let expressions: Vec<_> = SAMPLES
        .iter()
        .flat_map(|Sample { name, sink, .. }| {
            let scalar = |column: String| format!("arrayMap(x -> {}, [{column}])[1]", hex(sink));
            [
                scalar(format!("{name}_full")),
                scalar(format!("{name}_null")),
                format!(
                    "concat('[', arrayStringConcat(arrayMap(x -> {}, {name}_list), ','), ']')",
                    hex(sink)
                ),
            ]
        })
        .collect();
    let table = sink.qualified("everything");
    let sql = format!("select arrayStringConcat([{}], ' ') from {table} order by id", expressions.join(", "));
    sink.query(&sql).await.unwrap()
}

fn assert_same(source: &[String], sink: &[String]) {
    assert_eq!(source.len(), sink.len());
    for (row, (source, sink)) in source.iter().zip(sink).enumerate() {
        for (index, (source, sink)) in source.split(' ').zip(sink.split(' ')).enumerate() {
            let column = ["full", "null", "list"][index % 3];
            assert_eq!(source, sink, "row {row}, {} {column}", SAMPLES[index / 3].name);
        }
    }
}

/// Inserts the table by the text form of every value, as a stream in text form has it.
async fn insert_as_text(session: &Session, sink: &Clickhouse, plan: &Arc<TablePlan>) {
    let columns: Vec<_> = plan
        .columns
        .iter()
        .map(|column| format!("case when num_nulls({0}) = 0 then format('%s', {0}) end", column.name))
        .collect();
    let sql = format!("select {} from public.everything", columns.join(", "));
    let mut block = Block::new(plan.clone(), sink.time_range());
    for row in session.query(&sql, &[]).await.unwrap() {
        for column in 0..plan.columns.len() {
            let text: Option<&str> = row.get(column);
            block.push_field(column, text.map_or(Field::Null, |text| Field::Text(text.as_bytes()))).unwrap();
        }
        block.finish_row(Stamp { version: version().0, operation: Operation::Insert, at: 0 }).unwrap();
    }
    let mut body = Vec::new();
    block.encode_native(0, &mut body).unwrap();
    sink.insert(plan, Bytes::from(body), &insert_id("everything"), || true).await.unwrap();
}

#[tokio::test]
async fn every_type_arrives_as_it_is_by_both_forms() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    make_table(&session).await;
    let plan = prepare(&session, &sink, &TableName::new("public", "everything")).await;
    let source = source_texts(&session).await;

    assert_eq!(copy_all(&session, &sink, &plan).await, source.len() as u64);
    assert_same(&source, &sink_texts(&sink).await);

    let table = sink.qualified("everything");
    sink.execute(&format!("TRUNCATE TABLE {table}")).await.unwrap();
    insert_as_text(&session, &sink, &plan).await;
    assert_same(&source, &sink_texts(&sink).await);

    let own: Vec<(u128, u8)> =
        sink.query(&format!("select distinct _version, _is_deleted from {table}")).await.unwrap();
    assert_eq!(own, [(version().0, 0)]);
}

#[tokio::test]
async fn a_value_that_cannot_be_held_names_its_column_and_not_itself() {
    let source = Source::new().await;
    let (session, sink) = (source.plain_session().await, destination(&source.word).await);
    for (table, kind, value) in [
        ("moments", "timestamptz", "infinity"),
        ("days", "date", "0044-03-15 BC"),
        ("prices", "numeric(5,2)", "NaN"),
        ("lists", "int4[]", "{{12345},{67890}}"),
    ] {
        let name = TableName::new("public", table);
        session
            .batch_execute(&format!(
                "create table public.{table} (id int4 primary key, v {kind}); insert into public.{table} values (1, '{value}')"
            ))
            .await
            .unwrap();
        let plan = prepare(&session, &sink, &name).await;
        let partition = partitions(&session, &name, 64 << 20).await.remove(0);
        let other = source.plain_session().await;
        let error = copy_one(&other, &sink, &plan, &partition).await.unwrap_err();
        assert_eq!(error.code(), Code::ValueUnrepresentable, "{table}: {error}");
        assert_eq!(error.metadata().get("column").map(String::as_str), Some("v"));
        assert_eq!(error.metadata().get("table"), Some(&name.to_string()));
        assert!(!error.message().contains(value) && !error.message().contains("12345"));
    }
}
