use std::sync::Arc;

use millrace_terms::Code;

use super::{Block, Operation, Stamp, key_equals};
use crate::table::fixtures::{column, plan_of as plan};
use crate::table::{Audit, Origin, TablePlan};
use crate::types::{Conversion, Field, TimeRange};

fn sample_plan() -> Arc<TablePlan> {
    plan(vec![
        column("id", false, Conversion::Int32),
        column("s", true, Conversion::Text),
        column("a", true, Conversion::Array(Box::new(Conversion::Text))),
    ])
}

fn push_row(block: &mut Block, id: i32, s: Field<'_>, a: &str) {
    block.push_field(0, Field::Binary(&id.to_be_bytes())).unwrap();
    block.push_field(1, s).unwrap();
    block.push_field(2, Field::Text(a.as_bytes())).unwrap();
}

fn stamp(version: u128, operation: Operation) -> Stamp {
    Stamp { version, operation, at: 9 }
}

fn encoded(block: &Block) -> Vec<u8> {
    let mut out = Vec::new();
    block.encode_native(7, &mut out).unwrap();
    out
}

#[test]
fn a_block_is_what_the_native_format_says() {
    let mut block = Block::new(sample_plan(), TimeRange::WIDE);
    push_row(&mut block, 1, Field::Text(b"x"), "{y,NULL}");
    block.finish_row(stamp(5, Operation::Insert)).unwrap();
    block.push_field(0, Field::Text(b"-2")).unwrap();
    block.push_default(1);
    block.push_default(2);
    block.finish_row(stamp(u128::MAX, Operation::Delete)).unwrap();
    assert_eq!(block.rows(), 2);

    let mut expected = vec![6, 2];
    let mut add = |name: &str, kind: &str, data: &[u8]| {
        expected.push(name.len() as u8);
        expected.extend(name.bytes());
        expected.push(kind.len() as u8);
        expected.extend(kind.bytes());
        expected.extend(data);
    };
    add("id", "Int32", &[1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    add("s", "Nullable(String)", b"\0\x01\x01x\0");
    let ends = [2u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
    add("a", "Array(Nullable(String))", &[&ends[..], b"\0\x01\x01y\0"].concat());
    add("_version", "UInt128", &[5u128.to_le_bytes(), u128::MAX.to_le_bytes()].concat());
    add("_is_deleted", "UInt8", &[0, 1]);
    add("_synced_at", "DateTime64(6)", &[7i64.to_le_bytes(), 7i64.to_le_bytes()].concat());
    assert_eq!(encoded(&block), expected);
}

#[test]
fn a_row_of_a_shared_and_audited_table_tells_where_it_is_from() {
    let mut plan = Arc::unwrap_or_clone(plan(vec![column("id", false, Conversion::Int32)]));
    plan.own.source = Some(Origin { name: "_source".into(), value: "m/public.t".into() });
    plan.own.audit = Some(Audit { database: "shop".into() });
    let mut block = Block::new(Arc::new(plan), TimeRange::WIDE);
    let operations = [Operation::Snapshot, Operation::Update, Operation::Delete];
    for operation in operations {
        block.push_field(0, Field::Text(b"1")).unwrap();
        block.finish_row(stamp(5, operation)).unwrap();
    }
    let text = |name: &str, values: [&str; 3]| {
        let values = values.iter().flat_map(|value| [&[value.len() as u8], value.as_bytes()].concat());
        let head = [&[name.len() as u8], name.as_bytes(), b"\x06String"].concat();
        [head, values.collect()].concat()
    };
    let sent = encoded(&block);
    assert_eq!(sent[..2], [9, 3]);
    for column in [
        text("_source", ["m/public.t"; 3]),
        text("cdc_operation", ["snapshot", "update", "delete"]),
        [&b"\x0dcdc_timestamp\x0dDateTime64(6)"[..], &[9i64.to_le_bytes(); 3].concat()].concat(),
        text("cdc_source_db", ["shop"; 3]),
        text("cdc_source_table", ["public.t"; 3]),
    ] {
        assert!(sent.windows(column.len()).any(|part| part == column), "{column:?}");
    }
    // All of it is counted: the columns are not sent without it.
    assert!(block.bytes() > 3 * ("m/public.t".len() + "shop".len() + "public.t".len()));
    block.clear();
    assert_eq!(encoded(&block)[1], 0);
}

#[test]
fn an_aborted_row_leaves_no_trace() {
    let mut block = Block::new(sample_plan(), TimeRange::WIDE);
    push_row(&mut block, 1, Field::Text(b"x"), "{y}");
    block.finish_row(stamp(1, Operation::Insert)).unwrap();
    let (before, bytes) = (encoded(&block), block.bytes());

    let nested = block.push_field(2, Field::Text(b"{a,b,{c}}")).unwrap_err();
    assert_eq!(nested.code(), Code::ValueUnrepresentable);
    block.abort_row();
    push_row(&mut block, 2, Field::Null, "{a,NULL}");
    block.abort_row();
    block.push_field(1, Field::Null).unwrap();
    block.abort_row();
    assert_eq!((encoded(&block), block.bytes()), (before.clone(), bytes));

    push_row(&mut block, 2, Field::Null, "{}");
    block.finish_row(stamp(1, Operation::Insert)).unwrap();
    assert!(block.bytes() > bytes);
    block.clear();
    assert_eq!((block.rows(), block.bytes()), (0, 0));
    push_row(&mut block, 1, Field::Text(b"x"), "{y}");
    block.finish_row(stamp(1, Operation::Insert)).unwrap();
    assert_eq!(encoded(&block), before);
}

#[test]
fn errors_name_table_and_column_and_never_the_value() {
    let mut block = Block::new(sample_plan(), TimeRange::WIDE);
    let null = block.push_field(0, Field::Null).unwrap_err();
    assert_eq!(null.code(), Code::TableSchemaChanged);
    let error = block.push_field(0, Field::Text(b"secret")).unwrap_err();
    assert_eq!(error.metadata().get("table").map(String::as_str), Some("public.t"));
    assert_eq!(error.metadata().get("column").map(String::as_str), Some("id"));
    assert!(!error.message().contains("secret"));
}

#[test]
fn a_row_must_be_whole() {
    let mut block = Block::new(sample_plan(), TimeRange::WIDE);
    block.push_default(0);
    assert_eq!(block.finish_row(stamp(1, Operation::Insert)).unwrap_err().code(), Code::Internal);
    assert_eq!(block.encode_native(0, &mut Vec::new()).unwrap_err().code(), Code::Internal);
    block.push_default(0);
    block.push_default(1);
    block.push_default(2);
    assert_eq!(block.finish_row(stamp(1, Operation::Insert)).unwrap_err().code(), Code::Internal);
    block.abort_row();
    assert_eq!(block.push_field(3, Field::Null).unwrap_err().code(), Code::Internal);
}

#[test]
fn keys_are_compared_as_clickhouse_compares_them() {
    let equal = |conversion: Conversion, old: Field<'_>, new: Field<'_>| {
        key_equals(&plan(vec![column("k", true, conversion)]), &[old], &[new]).unwrap()
    };
    let text = |text: &'static str| Field::Text(text.as_bytes());
    let decimal = Conversion::Decimal { precision: 9, scale: 2 };
    // One key to ClickHouse, though PostgreSQL stores them differently.
    assert!(equal(decimal.clone(), text("1.0"), text("1.00")));
    assert!(equal(Conversion::Float64, text("-0"), text("0")));
    assert!(equal(Conversion::Float32, Field::Binary(&0f32.to_be_bytes()), text("-0")));
    assert!(equal(Conversion::Float64, text("NaN"), Field::Binary(&(-f64::NAN).to_be_bytes())));
    assert!(equal(Conversion::Int32, text("7"), Field::Binary(&7i32.to_be_bytes())));
    assert!(equal(Conversion::Array(Box::new(Conversion::Float64)), text("{0,1}"), text("{-0,1}")));
    assert!(equal(Conversion::Text, Field::Null, Field::Null));
    // Two keys.
    assert!(!equal(decimal, text("1.0"), text("1.01")));
    assert!(!equal(Conversion::NumericText, text("1.0"), text("1.00")));
    assert!(!equal(Conversion::Text, text("a"), text("A")));
    assert!(!equal(Conversion::Text, text(""), Field::Null));
    assert!(!equal(Conversion::Float64, text("-1"), text("1")));
    assert!(!equal(Conversion::Array(Box::new(Conversion::Text)), text("{a}"), text("{a,b}")));
}

#[test]
fn only_the_key_is_compared() {
    let plan = plan(vec![column("k", false, Conversion::Text), column("v", false, Conversion::Text)]);
    let (old, new) = ([Field::Text(b"k"), Field::Null], [Field::Text(b"k"), Field::Text(b"v")]);
    assert!(key_equals(&plan, &old, &new).unwrap());
    assert_eq!(key_equals(&plan, &[], &new).unwrap_err().code(), Code::Internal);
}
