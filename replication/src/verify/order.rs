//! By what a table is cut into ranges, so that the same rows are in a range on both sides. Pure.
//!
//! A range is a piece of the key's order, and the two servers do not order everything alike: PostgreSQL
//! compares text by the column's collation, ClickHouse by bytes; UUIDs are ordered by another half. So a
//! key column is used only in an order that both have: numbers and times by their own, text by
//! `COLLATE "C"`, a UUID by its text on ClickHouse's side. Where that is not the order of both sides'
//! indexes, each range costs a scan, and there are few.

use millrace_terms::quote_ident as quote_source;
use serde::{Deserialize, Serialize};

use crate::clickhouse::ddl::{quote_ident, quote_text};
use crate::table::TablePlan;
use crate::types::{Conversion, TimeRange, literal};

/// Columns of a key that bound a range at most: more only make the statements longer.
const COLUMNS_MAX: usize = 3;

/// A piece of a table's key space: from the first bound on, up to the second one. A bound has the values
/// of the columns that order the table, in their text form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Range {
    /// The first key of it; empty for the beginning.
    pub from: Vec<String>,
    /// The first key behind it; empty for the end.
    pub to: Vec<String>,
}

/// One column of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ordered {
    /// Index into the plan's columns.
    column: usize,
    /// What PostgreSQL compares.
    source: String,
    /// Its type there, of which a bound's text is a literal.
    kind: &'static str,
    /// What ClickHouse compares, and whether it does so as text.
    destination: String,
    as_text: bool,
    /// Whether both sides find a range of it without a scan.
    indexed: bool,
}

/// The order by which a table is cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    columns: Vec<Ordered>,
}

impl Order {
    /// The order of a table. `is_bytewise` says of a column (by its index) whether PostgreSQL's own order
    /// of its text is that of bytes.
    pub fn of(plan: &TablePlan, is_bytewise: impl Fn(usize) -> bool) -> Self {
        let known: Vec<Option<Ordered>> =
            plan.key.iter().map(|&at| ordered(plan, at, is_bytewise(at))).collect();
        let leading: Vec<Ordered> = known.iter().map_while(Clone::clone).take(COLUMNS_MAX).collect();
        if !leading.is_empty() {
            return Self { columns: leading };
        }
        // Not the key's first column: no index helps.
        let other = known.into_iter().flatten().next();
        Self { columns: other.map(|column| Ordered { indexed: false, ..column }).into_iter().collect() }
    }

    /// Whether there is an order at all. If not, the table is one range.
    pub fn is_known(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether both sides find a range without reading the whole table.
    pub fn is_indexed(&self) -> bool {
        self.is_known() && self.columns.iter().all(|column| column.indexed)
    }

    /// What PostgreSQL sorts by, each with its text, of which a bound is made.
    pub(super) fn source_columns(&self) -> impl Iterator<Item = (&str, String)> {
        self.columns.iter().map(|column| {
            let text = match column.kind {
                "text" => column.source.clone(),
                _ => format!("({})::pg_catalog.text", column.source),
            };
            (column.source.as_str(), text)
        })
    }

    /// The condition for a row of the source to be in a range; none if every row is.
    pub(super) fn on_source(&self, range: &Range) -> Option<String> {
        let row = |values: Vec<String>| match values.as_slice() {
            [one] => one.clone(),
            many => format!("({})", many.join(", ")),
        };
        let side = |bound: &[String], comparison: &str| {
            let pairs = self.columns.iter().zip(bound);
            let literals =
                pairs.map(|(column, text)| format!("{}::pg_catalog.{}", source_text(text), column.kind));
            let columns = self.columns.iter().take(bound.len()).map(|column| column.source.clone());
            format!("{} {comparison} {}", row(columns.collect()), row(literals.collect()))
        };
        let from = (!range.from.is_empty()).then(|| side(&range.from, ">="));
        let to = (!range.to.is_empty()).then(|| side(&range.to, "<"));
        both(from, to)
    }

    /// The condition for a row of the destination to be in a range; none if every row is.
    ///
    /// Written out column by column: the server does not look up tuples in its index.
    pub(super) fn on_destination(&self, plan: &TablePlan, range: &Range) -> Option<String> {
        let side = |bound: &[String], comparison: &str| {
            let literals = self.literals(plan, bound);
            let last = literals.len().saturating_sub(1);
            let mut condition = String::new();
            for (at, (column, value)) in self.columns.iter().zip(&literals).enumerate().rev() {
                let name = &column.destination;
                condition = match at == last {
                    true if comparison == ">=" => format!("{name} >= {value}"),
                    true => format!("{name} < {value}"),
                    false => {
                        let strictly = &comparison[..1];
                        format!("({name} {strictly} {value} OR {name} = {value} AND {condition})")
                    }
                };
            }
            condition
        };
        let from = (!range.from.is_empty()).then(|| side(&range.from, ">="));
        let to = (!range.to.is_empty()).then(|| side(&range.to, "<"));
        both(from, to)
    }

    /// Whether ClickHouse can be told the bound.
    pub(super) fn takes(&self, plan: &TablePlan, bound: &[String]) -> bool {
        self.literals(plan, bound).len() == self.columns.len()
    }

    fn literals(&self, plan: &TablePlan, bound: &[String]) -> Vec<String> {
        let value = |(column, text): (&Ordered, &String)| match column.as_text {
            true => Some(quote_text(text)),
            false => literal(plan.columns.get(column.column)?, text, TimeRange::WIDE).ok()?,
        };
        self.columns.iter().zip(bound).map_while(value).collect()
    }
}

fn both(from: Option<String>, to: Option<String>) -> Option<String> {
    match (from, to) {
        (Some(from), Some(to)) => Some(format!("{from} AND {to}")),
        (one, other) => one.or(other),
    }
}

/// A literal of PostgreSQL, whatever `standard_conforming_strings` is.
fn source_text(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The OIDs of `bytea`, `oid`, `xid8`, `timestamp`, `timestamptz`, `varchar`: types whose conversion other
/// types share.
const OID: u32 = 26;
const XID8: u32 = 5069;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const TEXT: [u32; 2] = [25, 1043];

/// How a key column orders the table; none if the two sides have no order in common.
fn ordered(plan: &TablePlan, at: usize, is_bytewise: bool) -> Option<Ordered> {
    let column = plan.columns.get(at)?;
    // A NULL is in no range.
    if column.nullable {
        return None;
    }
    let (name, destination) = (quote_source(&column.name), quote_ident(&column.destination));
    // A domain's column is compared as its base type.
    let own = |kind: &'static str, oid: u32| {
        let source = if column.type_oid == oid { name.clone() } else { format!("{name}::pg_catalog.{kind}") };
        let destination = destination.clone();
        Some(Ordered { column: at, source, kind, destination, as_text: false, indexed: true })
    };
    let text = |source: String, indexed| {
        let destination = format!("toString({destination})");
        Some(Ordered { column: at, source, kind: "text", destination, as_text: true, indexed })
    };
    match &column.conversion {
        Conversion::Int16 => own("int2", 21),
        Conversion::Int32 => own("int4", 23),
        Conversion::Int64 => own("int8", 20),
        Conversion::UInt32 if column.type_oid == OID => own("oid", OID),
        Conversion::UInt64 if column.type_oid == XID8 => own("xid8", XID8),
        Conversion::Decimal { .. } => own("numeric", 1700),
        Conversion::Date => own("date", 1082),
        Conversion::Timestamp if column.type_oid == TIMESTAMP => own("timestamp", TIMESTAMP),
        Conversion::Timestamp if column.type_oid == TIMESTAMPTZ => own("timestamptz", TIMESTAMPTZ),
        Conversion::Bytes => own("bytea", 17),
        Conversion::Uuid => {
            let ordered = own("uuid", 2950)?;
            Some(Ordered {
                destination: format!("toString({})", ordered.destination),
                as_text: true,
                indexed: false,
                ..ordered
            })
        }
        Conversion::Text if TEXT.contains(&column.type_oid) && is_bytewise => {
            let text = text(name.clone(), true)?;
            Some(Ordered { destination, ..text })
        }
        Conversion::Text if TEXT.contains(&column.type_oid) => text(format!("{name} collate \"C\""), false),
        // By the text that is sent of it.
        Conversion::Text
        | Conversion::NumericText
        | Conversion::Jsonb
        | Conversion::Rendered(_)
        | Conversion::TextForm => text(format!("pg_catalog.format('%s', {name}) collate \"C\""), false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::table::fixtures::{column, plan_of};

    fn plan(columns: &[(&str, Conversion, u32)]) -> Arc<TablePlan> {
        let made = columns.iter().map(|(name, conversion, oid)| {
            let mut column = column(name, false, conversion.clone());
            column.type_oid = *oid;
            column
        });
        let mut plan = Arc::unwrap_or_clone(plan_of(made.collect()));
        plan.key = (0..columns.len()).collect();
        Arc::new(plan)
    }

    fn range(from: &[&str], to: &[&str]) -> Range {
        let owned = |bound: &[&str]| bound.iter().map(|text| (*text).to_owned()).collect();
        Range { from: owned(from), to: owned(to) }
    }

    #[test]
    fn both_sides_are_asked_for_the_same_rows() {
        let plan = plan(&[("a", Conversion::Int64, 20), ("b", Conversion::Text, 25)]);
        let order = Order::of(&plan, |_| false);
        assert!(!order.is_indexed());
        let asked = range(&["7", "it's \\"], &["9", ""]);
        assert_eq!(
            order.on_source(&asked).unwrap(),
            "(\"a\", \"b\" collate \"C\") >= (E'7'::pg_catalog.int8, E'it''s \\\\'::pg_catalog.text) AND \
             (\"a\", \"b\" collate \"C\") < (E'9'::pg_catalog.int8, E''::pg_catalog.text)"
        );
        assert_eq!(
            order.on_destination(&plan, &asked).unwrap(),
            "(`a` > CAST('7', 'Int64') OR `a` = CAST('7', 'Int64') AND toString(`b`) >= 'it\\'s \\\\') AND \
             (`a` < CAST('9', 'Int64') OR `a` = CAST('9', 'Int64') AND toString(`b`) < '')"
        );
        assert_eq!(order.on_source(&Range::default()), None);
    }

    #[test]
    fn an_index_is_used_where_both_sides_have_one() {
        let plan = plan(&[("a", Conversion::Text, 25)]);
        assert!(Order::of(&plan, |_| true).is_indexed());
        let asked = range(&["x"], &[]);
        assert_eq!(Order::of(&plan, |_| true).on_source(&asked).unwrap(), "\"a\" >= E'x'::pg_catalog.text");
        assert_eq!(Order::of(&plan, |_| true).on_destination(&plan, &asked).unwrap(), "`a` >= 'x'");
    }

    #[test]
    fn a_key_without_a_common_order_is_one_range_or_is_cut_by_another_column() {
        let floats = plan(&[("f", Conversion::Float64, 701)]);
        assert!(!Order::of(&floats, |_| true).is_known());
        let mixed = plan(&[("f", Conversion::Bool, 16), ("i", Conversion::Int32, 23)]);
        let order = Order::of(&mixed, |_| true);
        assert!(order.is_known() && !order.is_indexed());
        assert_eq!(order.on_source(&range(&["1"], &[])).unwrap(), "\"i\" >= E'1'::pg_catalog.int4");
    }
}
