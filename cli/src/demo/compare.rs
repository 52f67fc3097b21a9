//! Whether a table is the same on both sides: every row, every column.
//!
//! I/O rim; the comparison itself is pure.

use std::collections::HashMap;
use std::fmt;

use anyhow::Context;
use futures::TryStreamExt;
use tokio_postgres::Client;

use super::shop::{Column, Table};

/// Differences of one table that are shown.
const SHOWN_MAX: usize = 10;
/// How NULL enters a row's digest.
const NULL: &str = "\\N";
/// What separates columns there.
const SEPARATOR: &str = "|";

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows on the source.
    pub rows: u64,
    /// Rows that differ.
    pub differences: u64,
    /// Some of them, for a person.
    pub shown: Vec<String>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Missing,
    Extra,
    Changed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Missing => "is missing in ClickHouse",
            Kind::Extra => "is only in ClickHouse",
            Kind::Changed => "differs",
        })
    }
}

/// Compares a table.
///
/// # Errors
/// If a side cannot be read.
pub async fn compare(
    source: &Client,
    destination: &clickhouse::Client,
    table: &Table,
) -> anyhow::Result<Outcome> {
    let rows = source.query_raw(&digests_on_source(table), no_parameters()).await;
    let rows: Vec<(String, String)> =
        rows.context("reading the source")?.map_ok(|row| (row.get(0), row.get(1))).try_collect().await?;
    let mut cursor = destination.query(&digests_on_destination(table)).fetch::<(String, String)>()?;
    let mut difference = Difference::new(rows);
    while let Some((key, digest)) = cursor.next().await.context("reading ClickHouse")? {
        difference.found(key, &digest);
    }
    let (rows, found) = difference.end();
    let mut shown = Vec::new();
    for (key, kind) in found.iter().take(SHOWN_MAX) {
        let detail = match kind {
            Kind::Changed => changed_columns(source, destination, table, key).await?,
            Kind::Missing | Kind::Extra => String::new(),
        };
        shown.push(format!("{} {key} {kind}{detail}", table.name));
    }
    Ok(Outcome { rows, differences: found.len() as u64, shown })
}

/// Both sides' rows by key.
struct Difference {
    rows: u64,
    expected: HashMap<String, String>,
    found: Vec<(String, Kind)>,
}

impl Difference {
    fn new(rows: Vec<(String, String)>) -> Self {
        Self { rows: rows.len() as u64, expected: rows.into_iter().collect(), found: Vec::new() }
    }

    /// A row of the destination. One that comes twice is an extra one.
    fn found(&mut self, key: String, digest: &str) {
        match self.expected.remove(&key) {
            Some(expected) if expected == digest => {}
            Some(_) => self.found.push((key, Kind::Changed)),
            None => self.found.push((key, Kind::Extra)),
        }
    }

    fn end(mut self) -> (u64, Vec<(String, Kind)>) {
        let mut missing: Vec<String> = self.expected.into_keys().collect();
        missing.sort_unstable();
        self.found.extend(missing.into_iter().map(|key| (key, Kind::Missing)));
        (self.rows, self.found)
    }
}

fn key_on_source(table: &Table) -> String {
    let parts: Vec<String> = table.key.iter().map(|name| format!("{name}::text")).collect();
    format!("concat_ws('/', {})", parts.join(", "))
}

fn key_on_destination(table: &Table) -> String {
    let parts: Vec<String> = table.key.iter().map(|name| format!("toString({name})")).collect();
    format!("concat({}, '')", parts.join(", '/', "))
}

fn digests_on_source(table: &Table) -> String {
    let column = |c: &Column| format!("coalesce({}, '{NULL}')", c.on_source());
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    let row = columns.join(&format!(" || '{SEPARATOR}' || "));
    format!("select {}, md5({row}) from {}", key_on_source(table), table.name)
}

fn digests_on_destination(table: &Table) -> String {
    let column = |c: &Column| format!("ifNull({}, '{}')", c.on_destination(), NULL.replace('\\', "\\\\"));
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    let row = columns.join(&format!(", '{SEPARATOR}', "));
    format!("SELECT {}, lower(hex(MD5(concat({row})))) FROM {}", key_on_destination(table), table.name)
}

/// The columns that differ in one row, with both values: it is the demo's own data.
async fn changed_columns(
    source: &Client,
    destination: &clickhouse::Client,
    table: &Table,
    key: &str,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for column in table.columns {
        let name = column.name;
        let sql =
            format!("select {} from {} where {} = $1", column.on_source(), table.name, key_on_source(table));
        let expected: Option<String> = source.query_opt(&sql, &[&key]).await?.and_then(|row| row.get(0));
        let sql = format!(
            "SELECT toNullable({}) FROM {} WHERE {} = ?",
            column.on_destination(),
            table.name,
            key_on_destination(table)
        );
        let found = destination.query(&sql).bind(key).fetch_all::<Option<String>>().await?;
        if found.first() != Some(&expected) {
            text.push_str(&format!("; {name}: {expected:?} on the source, {found:?} in ClickHouse"));
        }
    }
    Ok(text)
}

fn no_parameters() -> std::iter::Empty<&'static (dyn tokio_postgres::types::ToSql + Sync)> {
    std::iter::empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_extra_changed_and_repeated_rows_are_told_apart() {
        let row = |key: &str, digest: &str| (key.to_owned(), digest.to_owned());
        let mut difference = Difference::new(vec![row("1", "a"), row("2", "b"), row("3", "c")]);
        for (key, digest) in [("1", "a"), ("1", "a"), ("2", "x"), ("9", "z")] {
            difference.found(key.to_owned(), digest);
        }
        let expected = [("1", Kind::Extra), ("2", Kind::Changed), ("9", Kind::Extra), ("3", Kind::Missing)];
        assert_eq!(difference.end(), (3, expected.map(|(key, kind)| (key.to_owned(), kind)).into()));
    }
}
