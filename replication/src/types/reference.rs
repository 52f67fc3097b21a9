//! The table of types as people read it: `docs/reference/types.md`. Pure.

use super::builtin::{BUILTIN, OF_EXTENSIONS};
use super::choice::possible;
use super::conversion::{Rendered, Vector};
use super::vector::SPARSE_DIMENSIONS_MAX;
use super::{Conversion, OnUnrepresentable};

/// What happens to the values of some types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The types, as PostgreSQL calls them.
    pub types: Vec<String>,
    /// The ClickHouse type of a column that is NOT NULL.
    pub clickhouse_type: String,
    /// Whether values are taken in PostgreSQL's binary form, where the source can be asked for it.
    pub binary: bool,
    /// What is worth knowing; may be empty.
    pub remark: &'static str,
    /// Values that the ClickHouse type cannot hold; empty for none.
    pub refused: String,
    /// The ClickHouse type of such a column under `on_unrepresentable: string`, if it is another.
    pub as_string: Option<String>,
    /// What a user may choose instead.
    pub choices: Vec<String>,
}

/// The whole table: types with the same fate are one entry.
pub fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let builtin = BUILTIN.iter().map(|(_, name, conversion)| ((*name).to_owned(), conversion.clone()));
    let numeric = [
        ("numeric(p, s), p <= 76".to_owned(), Conversion::Decimal { precision: 38, scale: 9 }),
        ("numeric; numeric(p, s), p > 76".to_owned(), Conversion::NumericText),
    ];
    let extensions = OF_EXTENSIONS.iter().map(|(extension, name, conversion)| {
        let name = if extension == name { (*name).to_owned() } else { format!("{name} ({extension})") };
        (name, conversion.clone())
    });
    let others = [
        ("composite types".to_owned(), Conversion::TextForm),
        ("ranges and multiranges made by users".to_owned(), Conversion::TextForm),
        ("any other type of any extension".to_owned(), Conversion::TextForm),
        ("T[]".to_owned(), Conversion::Array(Box::new(Conversion::Int32))),
        (
            "T[][]".to_owned(),
            Conversion::Nested { element: Box::new(Conversion::Int32), depth: 2, delimiter: ',' },
        ),
    ];
    for (name, conversion) in builtin.chain(numeric).chain(extensions).chain(others) {
        let entry = entry(&name, &conversion);
        match entries.iter_mut().find(|known| same_fate(known, &entry)) {
            Some(known) => known.types.push(name),
            None => entries.push(entry),
        }
    }
    entries.push(Entry {
        types: vec!["enums".to_owned()],
        clickhouse_type: "LowCardinality(String)".to_owned(),
        remark: "Values that are added later need no change.",
        choices: vec!["String".to_owned()],
        ..entry("", &Conversion::Text)
    });
    entries
}

fn same_fate(a: &Entry, b: &Entry) -> bool {
    let fate = |entry: &Entry| Entry { types: Vec::new(), ..entry.clone() };
    fate(a) == fate(b)
}

fn entry(name: &str, conversion: &Conversion) -> Entry {
    let spelled = |conversion: &Conversion| conversion.spelled(&conversion.innermost().wire_type(), false);
    let text = conversion.clone().under(OnUnrepresentable::String);
    let (clickhouse_type, choices) = match (name, conversion) {
        ("T[]", _) => ("Array(Nullable(T))".to_owned(), vec!["Array(U), where T may be U".to_owned()]),
        ("T[][]", _) => ("Array(Array(Nullable(T)))".to_owned(), Vec::new()),
        (_, Conversion::Decimal { .. }) => ("Decimal(p, s)".to_owned(), possible(conversion).split_off(1)),
        // What is replicated by default needs not be chosen.
        _ => (spelled(conversion), possible(conversion).split_off(1)),
    };
    Entry {
        types: vec![name.to_owned()],
        clickhouse_type,
        binary: conversion.binary_known(),
        remark: remark(name, conversion),
        refused: refused(conversion),
        as_string: (text != *conversion && !text.is_array()).then(|| spelled(&text)),
        choices,
    }
}

fn remark(name: &str, conversion: &Conversion) -> &'static str {
    match (name, conversion) {
        ("json", _) | ("jsonb", _) => "Verbatim, as PostgreSQL writes it.",
        ("T[]", _) => {
            "NULL elements stay NULL; a NULL array is the empty one. `[2:4]={..}` loses its bounds. \
             Elements follow their type. A value of another depth than declared is refused."
        }
        ("T[][]", _) => {
            "By the depth that the column declares; choose `Array(Array(T))` or `String` for another."
        }
        (_, Conversion::Bytes) => "The raw bytes.",
        (_, Conversion::Float32 | Conversion::Float64) => "NaN and infinities are kept.",
        (_, Conversion::Decimal { .. }) => {
            "A negative scale becomes `Decimal(p - s, 0)`, one above the precision `Decimal(s, s)`."
        }
        (_, Conversion::NumericText) => "All digits, NaN and infinities are kept.",
        (_, Conversion::Timestamp) => "To the microsecond. `timestamp` shows the source's own digits.",
        (_, Conversion::Vector(Vector::Sparse)) => "The zeros are written out.",
        (_, Conversion::Vector(_)) => "NULL is the empty array.",
        (_, Conversion::Rendered(Rendered::Char)) => "Bytes above 127 as `\\ooo`, their octal digits.",
        (_, Conversion::TextForm) => {
            "PostgreSQL's own text. The stream of a table with such a column is read in text form."
        }
        (_, Conversion::Rendered(_)) => "PostgreSQL's own text.",
        _ => "",
    }
}

fn refused(conversion: &Conversion) -> String {
    match conversion {
        Conversion::Decimal { .. } => "NaN".to_owned(),
        Conversion::Date | Conversion::Timestamp => {
            "`infinity`, `-infinity`, and years outside what the server holds: it is asked, and says 1900 to 2299 \
             or 0001 to 9999"
                .to_owned()
        }
        Conversion::Vector(Vector::Sparse) => format!("more than {SPARSE_DIMENSIONS_MAX} dimensions"),
        Conversion::Array(_) | Conversion::Nested { .. } => "other dimensions than declared".to_owned(),
        _ => String::new(),
    }
}
