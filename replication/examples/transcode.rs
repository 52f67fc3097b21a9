//! Measures transcoding alone: nanoseconds per field of the reference table, in both wire forms.
//!
//! `cargo run --release -p millrace-replication --example transcode`

use std::sync::Arc;
use std::time::Instant;

use millrace_replication::block::{Block, Operation, Stamp};
use millrace_replication::table::{ColumnPlan, Identity, OwnColumns, Past, Seen, TablePlan};
use millrace_replication::types::{Conversion, Field, TimeRange};
use millrace_terms::{Result, TableName};

const ROWS: usize = 65_536;
const ROUNDS: usize = 20;

/// Name, conversion, text form and binary form of a value of each column.
fn columns() -> Vec<(&'static str, Conversion, &'static str, Vec<u8>)> {
    let uuid = 0x550e_8400_e29b_41d4_a716_4466_5544_0000_u128;
    let text = "0123456789abcdef0123456789abcdef01234567";
    let json = r#"{"k": 12345, "s": "some words", "b": true}"#;
    // 1234567.89: three groups of four digits, the first of weight 1.
    let numeric: Vec<u8> = [3u16, 1, 0, 2, 123, 4567, 8900].iter().flat_map(|n| n.to_be_bytes()).collect();
    vec![
        ("id", Conversion::Int64, "123456789", 123_456_789i64.to_be_bytes().to_vec()),
        ("a", Conversion::Int32, "123456", 123_456i32.to_be_bytes().to_vec()),
        ("b", Conversion::Text, text, text.into()),
        ("c", Conversion::Decimal { precision: 12, scale: 2 }, "1234567.89", numeric),
        (
            "d",
            Conversion::Timestamp,
            "2026-11-21 03:27:00.123456+00",
            848_546_820_123_456i64.to_be_bytes().to_vec(),
        ),
        ("e", Conversion::Jsonb, json, [&[1], json.as_bytes()].concat()),
        ("f", Conversion::Uuid, "550e8400-e29b-41d4-a716-446655440000", uuid.to_be_bytes().to_vec()),
        ("g", Conversion::Bool, "t", vec![1]),
    ]
}

fn plan() -> TablePlan {
    let columns = columns()
        .into_iter()
        .map(|(name, conversion, ..)| ColumnPlan {
            name: name.to_owned(),
            attnum: 1,
            type_oid: 0,
            typmod: -1,
            nullable: name != "id",
            generated: false,
            destination: name.to_owned(),
            clickhouse_type: conversion.wire_type(),
            conversion,
            past: Past::default(),
        })
        .collect();
    let own = |name: &str| name.to_owned();
    TablePlan {
        source: TableName::new("public", "bench"),
        oid: 1,
        destination: own("bench"),
        columns,
        excluded: Vec::new(),
        key: vec![0],
        identity: Identity::Default,
        order_by: vec![0],
        partition_by: String::new(),
        append_only: false,
        own: OwnColumns {
            version: own("_version"),
            is_deleted: own("_is_deleted"),
            synced_at: own("_synced_at"),
            source: None,
            audit: None,
        },
        seen: Seen::default(),
    }
}

/// Nanoseconds per call of `each`, the best of some rounds.
fn best(mut each: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        each()?;
        best = best.min(start.elapsed().as_nanos() as f64 / ROWS as f64);
    }
    Ok(best)
}

fn main() -> Result<()> {
    let columns = columns();
    let mut block = Block::new(Arc::new(plan()), TimeRange::WIDE);
    for (form, binary) in [("binary", true), ("text", false)] {
        let fields: Vec<_> = columns
            .iter()
            .map(
                |(_, _, text, bytes)| {
                    if binary { Field::Binary(bytes) } else { Field::Text(text.as_bytes()) }
                },
            )
            .collect();
        let row = best(|| {
            block.clear();
            for version in 0..ROWS {
                for (column, field) in fields.iter().enumerate() {
                    block.push_field(column, *field)?;
                }
                block.finish_row(Stamp { version: version as u128, operation: Operation::Insert, at: 0 })?;
            }
            Ok(())
        })?;
        println!("{form}: {row:.0} ns per row, {:.1} ns per field", row / columns.len() as f64);
        for ((name, conversion, text, bytes), _) in columns.iter().zip(&fields) {
            let field = if binary { Field::Binary(bytes) } else { Field::Text(text.as_bytes()) };
            let single = TablePlan {
                columns: plan().columns.into_iter().filter(|column| column.name == *name).collect(),
                ..plan()
            };
            let mut block = Block::new(Arc::new(single), TimeRange::WIDE);
            let one = best(|| {
                block.clear();
                for version in 0..ROWS {
                    block.push_field(0, field)?;
                    block.finish_row(Stamp {
                        version: version as u128,
                        operation: Operation::Insert,
                        at: 0,
                    })?;
                }
                Ok(())
            })?;
            println!("  {name} {:<12} {one:.1} ns, the row's end included", conversion.wire_type());
        }
    }
    let mut out = Vec::new();
    let encode = best(|| {
        out.clear();
        block.encode_native(0, &mut out)
    })?;
    println!("encode: {encode:.0} ns per row, {} bytes per row", out.len() / ROWS);
    Ok(())
}
