//! Decoding and transcoding alone, without servers: nanoseconds per field of each type in both wire forms,
//! and rows of the reference table a second from COPY and from the stream.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_replication::block::{Block, Operation, Stamp};
use millrace_replication::copy::Reader;
use millrace_replication::pgoutput::{self, Datum, Message};
use millrace_replication::table::{ColumnPlan, Identity, OwnColumns, Past, Seen, TablePlan};
use millrace_replication::types::{Conversion, Field, TimeRange};
use millrace_terms::TableName;

/// Values of one measurement: enough that the loop around them costs nothing, few enough for the cache.
const VALUES: u64 = 10_000;
/// Rows of one measurement.
const ROWS: u64 = 2_000;

/// The reference table: conversion, text form and binary form of a value.
fn reference() -> Vec<(&'static str, Conversion, &'static [u8], &'static [u8])> {
    const UUID: &[u8] =
        &[0x55, 0x0e, 0x84, 0, 0xe2, 0x9b, 0x41, 0xd4, 0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0, 0];
    // 123456.78: three digits of base 10,000, weight 1, positive, two digits after the point.
    const NUMERIC: &[u8] = &[0, 3, 0, 1, 0, 0, 0, 2, 0, 12, 0x0d, 0x80, 0x1e, 0x78];
    const TEXT: &[u8] = b"9f1c3e5a7b9d1f3e5a7c9b1d3f5e7a9c1b3d5f7e";
    const JSON: &[u8] = br#"{"k": 1234567, "tag": "9f1c3e5a7b9d1f3e5a7c"}"#;
    const JSONB: &[u8] = b"\x01{\"k\": 1234567, \"tag\": \"9f1c3e5a7b9d1f3e5a7c\"}";
    vec![
        ("bigint", Conversion::Int64, b"1234567890123", &[0, 0, 1, 0x1f, 0x71, 0xfb, 4, 0xcb]),
        ("int", Conversion::Int32, b"123456", &[0, 1, 0xe2, 0x40]),
        ("text", Conversion::Text, TEXT, TEXT),
        ("numeric", Conversion::Decimal { precision: 12, scale: 2 }, b"123456.78", NUMERIC),
        (
            "timestamptz",
            Conversion::Timestamp,
            b"2026-11-21 10:20:30.123456+00",
            &[0, 3, 3, 0x8c, 5, 0x91, 0xa8, 0],
        ),
        ("jsonb", Conversion::Jsonb, JSON, JSONB),
        ("uuid", Conversion::Uuid, b"550e8400-e29b-41d4-a716-446655440000", UUID),
        ("boolean", Conversion::Bool, b"t", &[1]),
    ]
}

fn plan(conversions: impl Iterator<Item = Conversion>) -> Arc<TablePlan> {
    let column = |(at, conversion): (usize, Conversion)| ColumnPlan {
        name: format!("c{at}"),
        attnum: 1,
        type_oid: 0,
        typmod: -1,
        nullable: false,
        generated: false,
        destination: format!("c{at}"),
        clickhouse_type: conversion.wire_type(),
        conversion,
        past: Past::default(),
    };
    Arc::new(TablePlan {
        source: TableName::new("public", "t"),
        oid: 1,
        destination: "t".to_owned(),
        columns: conversions.enumerate().map(column).collect(),
        excluded: Vec::new(),
        key: vec![0],
        identity: Identity::Default,
        order_by: vec![0],
        partition_by: String::new(),
        append_only: false,
        merges_heirs: false,
        own: OwnColumns {
            version: "_version".to_owned(),
            is_deleted: "_is_deleted".to_owned(),
            synced_at: "_synced_at".to_owned(),
            source: None,
            audit: None,
        },
        seen: Seen::default(),
    })
}

const STAMP: Stamp = Stamp { version: 1 << 64, operation: Operation::Insert, at: 0 };

/// A field of each type, in both forms: the time is that of one value, the end of its row included.
fn fields(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("field");
    group.throughput(Throughput::Elements(VALUES));
    for (name, conversion, text, binary) in reference() {
        for (form, field) in [("text", Field::Text(text)), ("binary", Field::Binary(binary))] {
            let mut block = Block::new(plan(std::iter::once(conversion.clone())), TimeRange::WIDE);
            group.bench_function(format!("{name}/{form}"), |bencher| {
                bencher.iter(|| {
                    block.clear();
                    for _ in 0..VALUES {
                        push(&mut block, 0, black_box(field));
                        end(&mut block);
                    }
                });
            });
        }
    }
    group.finish();
}

/// Whole rows, from the server's bytes to those for ClickHouse.
fn rows(criterion: &mut Criterion) {
    let table = plan(reference().into_iter().map(|(_, conversion, ..)| conversion));
    let mut group = criterion.benchmark_group("row");
    group.throughput(Throughput::Elements(ROWS));
    let copied = copied();
    let mut block = Block::new(table, TimeRange::WIDE);
    let mut out = Vec::new();
    group.bench_function("copy, binary", |bencher| {
        bencher.iter(|| {
            block.clear();
            out.clear();
            copy(black_box(&copied), &mut block);
            encode(&block, &mut out);
        });
    });
    for (form, kind) in [("text", b't'), ("binary", b'b')] {
        let message = inserted(kind);
        group.bench_function(format!("stream, {form}"), |bencher| {
            bencher.iter_batched(
                || vec![message.clone(); ROWS as usize],
                |messages| {
                    block.clear();
                    out.clear();
                    messages.into_iter().for_each(|message| insert(message, &mut block));
                    encode(&block, &mut out);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The bytes of a binary COPY.
fn copied() -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for _ in 0..ROWS {
        bytes.extend(8i16.to_be_bytes());
        for (.., binary) in reference() {
            bytes.extend((binary.len() as i32).to_be_bytes());
            bytes.extend(binary);
        }
    }
    bytes.extend((-1i16).to_be_bytes());
    bytes
}

fn copy(bytes: &[u8], block: &mut Block) {
    let mut reader = Reader::new(8);
    let read = reader.feed(bytes, |row| {
        for (column, field) in row.fields().enumerate() {
            block.push_field(column, field.map_or(Field::Null, Field::Binary))?;
        }
        block.finish_row(STAMP)
    });
    assert!(read.is_ok());
}

/// A message of the stream.
fn inserted(kind: u8) -> Bytes {
    let mut bytes = vec![b'I', 0, 0, 0, 1, b'N', 0, 8];
    for (_, _, text, binary) in reference() {
        let value = if kind == b't' { text } else { binary };
        bytes.push(kind);
        bytes.extend((value.len() as i32).to_be_bytes());
        bytes.extend(value);
    }
    bytes.into()
}

fn insert(message: Bytes, block: &mut Block) {
    let decoded = pgoutput::decode(message);
    assert!(matches!(decoded, Ok(Message::Insert(_))));
    let Ok(Message::Insert(insert)) = decoded else { return };
    for (column, datum) in insert.new.datums().enumerate() {
        let field = match datum {
            Datum::Text(value) => Field::Text(value),
            Datum::Binary(value) => Field::Binary(value),
            Datum::Null | Datum::Unchanged => Field::Null,
        };
        push(block, column, field);
    }
    end(block);
}

fn push(block: &mut Block, column: usize, field: Field<'_>) {
    assert!(block.push_field(column, field).is_ok());
}

fn end(block: &mut Block) {
    assert!(block.finish_row(STAMP).is_ok());
}

fn encode(block: &Block, out: &mut Vec<u8>) {
    assert!(block.encode_native(0, out).is_ok());
    black_box(out);
}

criterion_group!(benches, fields, rows);
criterion_main!(benches);
