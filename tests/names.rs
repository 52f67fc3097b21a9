//! Odd names everywhere: tables, columns, schemas, databases on both sides; copied, streamed, copied
//! again, and dropped.

use libtest_mimic::Trial;
use millrace_proto::v1::{self as api, mirror};
use millrace_terms::TableName;

use crate::support::bed::Bed;
use crate::support::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("names::odd_tables_columns_and_schemas", odd_tables_columns_and_schemas),
        test("names::odd_databases_and_destinations", odd_databases_and_destinations),
    ]
}

/// Names that break what quotes carelessly. The last has 63 bytes, the most that PostgreSQL takes.
const NAMES: &[&str] = &[
    "select",
    "MixedCase",
    "quest?ion",
    "da-sh",
    "a.dot",
    "two words",
    "sin'gle",
    "dou\"ble",
    "back\\slash",
    "tick`",
    "größe 表 🦆",
    "{braces} $1 %s",
    "; drop table x; --",
    "x23456789_x23456789_x23456789_x23456789_x23456789_x23456789_xyz",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn ticked(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// Each name is a table's in an oddly named schema, its key's, its column's and its value's.
fn sources() -> Vec<String> {
    NAMES
        .iter()
        .zip(NAMES.iter().rev())
        .map(|(table, schema)| format!("{}.{}", quoted(schema), quoted(table)))
        .collect()
}

async fn make_tables(bed: &Bed) {
    for ((name, other), source) in NAMES.iter().zip(NAMES.iter().rev()).zip(sources()) {
        let (key, column) = (quoted(name), quoted(&format!("{}!", &other[..other.floor_char_boundary(60)])));
        let (schema, big, text) = (quoted(other), quoted("b i g"), name.replace('\'', "''"));
        bed.sql(&format!(
            "create schema if not exists {schema}; create table {source} ({key} text primary key, {column} int, {big} text);
             alter table {source} alter {big} set storage external;
             insert into {source} values ('a', 1, repeat('x', 9000)), ('b', 2, null), ('{text}', 3, '')"
        ))
        .await;
    }
}

async fn change(bed: &Bed) {
    for ((name, other), source) in NAMES.iter().zip(NAMES.iter().rev()).zip(sources()) {
        let (key, column) = (quoted(name), quoted(&format!("{}!", &other[..other.floor_char_boundary(60)])));
        bed.sql(&format!(
            "update {source} set {column} = {column} + 10; update {source} set {key} = {key} || '?' where {key} = 'b';
             delete from {source} where {column} > 12; insert into {source} values ('d' || random()::text, 4, 'new')"
        ))
        .await;
    }
}

async fn assert_equal(bed: &Bed, mirror: &api::Mirror) {
    for table in &mirror.tables {
        let source: TableName = table.source.parse().expect("a name as SQL writes it");
        bed.wait_equal(&source.to_sql(), &ticked(&table.destination)).await;
    }
}

async fn resync_and_drop(bed: &Bed, mirror: &api::Mirror) {
    for table in &mirror.tables {
        let wrong = format!(
            "insert into {} (_version, _is_deleted, _synced_at) values (1, 0, now())",
            ticked(&table.destination)
        );
        bed.clickhouse.query(&wrong).await.expect("a row that the source does not hold");
    }
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    change(bed).await;
    bed.wait_state(mirror::State::Running).await;
    assert_equal(bed, mirror).await;
    let request =
        api::DeleteMirrorRequest { name: bed.name.clone(), drop_destination: true, ..Default::default() };
    let dropped = bed.mirrors().delete_mirror(request).await.expect("deleted").into_inner();
    assert!(dropped.done && dropped.leftovers.is_empty(), "{dropped:?}");
    let left = "select count() from system.tables where database = currentDatabase()";
    assert_eq!(bed.clickhouse.query(left).await.expect("a count").trim(), "0", "destination tables are gone");
}

async fn odd_tables_columns_and_schemas(bed: Bed) {
    make_tables(&bed).await;
    let sources = sources();
    let mirror = bed.mirror_streaming(&sources.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(mirror.tables.len(), NAMES.len());
    change(&bed).await;
    assert_equal(&bed, &mirror).await;
    resync_and_drop(&bed, &mirror).await;
}

/// Databases of odd names on both sides, and destination tables of names that the user chose.
async fn odd_databases_and_destinations(mut bed: Bed) {
    let source = format!("{} \"Db\" ?é.-'\\%20", bed.name);
    let destination = format!("{} `Db` ?é.-'\\%20", bed.name);
    bed.move_to(&source, "", &destination).await;
    make_tables(&bed).await;
    let sources = sources();
    let mut request = bed.mirror(&sources.iter().map(String::as_str).collect::<Vec<_>>());
    for (table, name) in request.tables.iter_mut().zip(NAMES.iter().rev()) {
        table.destination = format!("to {name}");
    }
    bed.create(request).await.expect("a mirror");
    let mirror = bed.wait_state(mirror::State::Running).await;
    change(&bed).await;
    assert_equal(&bed, &mirror).await;
    resync_and_drop(&bed, &mirror).await;
}
