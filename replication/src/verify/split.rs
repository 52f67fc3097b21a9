//! Cuts a table into ranges: what is known of its key, and a sample of it. I/O; how many ranges is
//! decided purely.
//!
//! The bounds come from a sample of the table's pages, so that cutting costs next to nothing, and the
//! ranges are of about one size whatever the values are. They need not be exact: rows that come later
//! belong to one of them, too.

use std::collections::BTreeSet;

use millrace_terms::{Error, Result};

use super::order::{Order, Range};
use crate::postgres::describe::TableShape;
use crate::postgres::shape::TableKind;
use crate::postgres::{NO_ENCODING, Session, from_sql};
use crate::table::TablePlan;

/// Rows of a range: read again as a whole when one of them differs, and lost with a worker.
const ROWS: u64 = 100_000;
/// Bytes of a range, as the source stores them.
const BYTES: u64 = 64 << 20;
/// Ranges of a table whose ranges cost a scan each.
const SCANS: u64 = 32;
/// Rows of a range at most, whatever it costs to find them: their digests are held in memory.
const ROWS_MAX: u64 = 2_000_000;
/// Bytes of a row where the source has not counted its rows yet.
const ROW_BYTES: u64 = 100;
/// Keys sampled for each bound, and in all at least: of a small table every page is looked at.
const SAMPLED: u64 = 30;
const SAMPLED_MIN: u64 = 10_000;

/// Of each column whether its text is ordered by bytes: its collation is "C", or it is the database's and
/// that is. `datlocprovider` is there since PostgreSQL 15; before, the provider is always libc.
const BYTEWISE: &str = "
select a.attnum, coalesce(l.collname in ('C', 'POSIX')
           or l.oid = 100 and d.datcollate in ('C', 'POSIX')
              and coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') = 'c', false),
       pg_catalog.current_setting('client_encoding')
  from pg_catalog.pg_attribute a
  left join pg_catalog.pg_collation l on l.oid = a.attcollation
  join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
 where a.attrelid = $1::oid and a.attnum = any ($2::int2[]) and not a.attisdropped";

/// A table that is going to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// By what its ranges are made.
    pub order: Order,
    /// Its rows on the source, by the source's own estimate.
    pub rows: u64,
    /// Its ranges; exactly one if there is nothing to cut it by.
    pub ranges: Vec<Range>,
}

/// By what a table is cut.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn order(session: &Session, plan: &TablePlan) -> Result<Order> {
    let numbers: Vec<i16> =
        plan.key.iter().filter_map(|at| plan.columns.get(*at)).map(|column| column.attnum).collect();
    let rows = session.query(BYTEWISE, &[&plan.oid, &numbers]).await;
    let rows = rows.map_err(|error| from_sql("asking for the collations of a key", &error))?;
    if rows.iter().any(|row| row.get::<_, &str>(2) == NO_ENCODING) {
        // Its texts are bytes that no statement can hold.
        return Ok(Order::default());
    }
    let bytewise: BTreeSet<i16> = rows.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect();
    Ok(Order::of(plan, |at| plan.columns.get(at).is_some_and(|column| bytewise.contains(&column.attnum))))
}

/// Cuts a table into ranges.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn cut(session: &Session, plan: &TablePlan, shape: &TableShape) -> Result<Cut> {
    let order = order(session, plan).await?;
    let rows = match shape.rows_estimated {
        0 => shape.bytes / ROW_BYTES,
        counted => counted,
    };
    let wanted = if plan.append_only { 1 } else { ranges(&order, rows, shape.bytes) };
    let ranges = into(session, plan, &order, with_heirs(shape), (rows, wanted)).await?;
    Ok(Cut { ranges, order, rows })
}

/// About so many ranges of a table of so many rows.
///
/// # Errors
/// Those of [`from_sql`].
pub async fn into(
    session: &Session,
    plan: &TablePlan,
    order: &Order,
    with_heirs: bool,
    (rows, ranges): (u64, u64),
) -> Result<Vec<Range>> {
    let bounds = match ranges {
        0 | 1 => Vec::new(),
        _ if !order.is_known() => Vec::new(),
        _ => sample(session, plan, order, with_heirs, rows, ranges).await?,
    };
    Ok(between(&bounds))
}

/// Whether rows of the table are in other relations beneath it.
pub fn with_heirs(shape: &TableShape) -> bool {
    shape.kind == TableKind::Partitioned || shape.leaves.iter().any(|leaf| leaf.oid != shape.oid)
}

/// How many ranges a table is cut into.
fn ranges(order: &Order, rows: u64, bytes: u64) -> u64 {
    if !order.is_known() {
        return 1;
    }
    let wanted = rows.div_ceil(ROWS).max(bytes.div_ceil(BYTES));
    let wanted = if order.is_indexed() { wanted } else { wanted.min(SCANS).max(rows.div_ceil(ROWS_MAX)) };
    wanted.clamp(1, rows.max(1))
}

/// The ranges between bounds, from the beginning to the end.
fn between(bounds: &[Vec<String>]) -> Vec<Range> {
    let begins = std::iter::once(Vec::new()).chain(bounds.iter().cloned());
    let ends = bounds.iter().cloned().chain([Vec::new()]);
    begins.zip(ends).map(|(from, to)| Range { from, to }).collect()
}

async fn sample(
    session: &Session,
    plan: &TablePlan,
    order: &Order,
    with_heirs: bool,
    rows: u64,
    ranges: u64,
) -> Result<Vec<Vec<String>>> {
    let sql = statement(plan, order, with_heirs, percent(rows, ranges), ranges);
    let sampled = session.query(&sql, &[]).await;
    let sampled = sampled.map_err(|error| from_sql("sampling the keys", &error))?;
    let mut bounds: Vec<Vec<String>> = Vec::new();
    for row in sampled {
        let bound: std::result::Result<Vec<String>, _> =
            (0..row.len()).map(|at| row.try_get::<_, String>(at)).collect();
        let bound: Vec<String> = bound.map_err(|error| -> Error { from_sql("sampling the keys", &error) })?;
        if order.takes(plan, &bound) && bounds.last() != Some(&bound) {
            bounds.push(bound);
        }
    }
    Ok(bounds)
}

/// The part of the pages that holds enough keys.
fn percent(rows: u64, ranges: u64) -> f64 {
    let wanted = ranges.saturating_mul(SAMPLED).max(SAMPLED_MIN) as f64;
    (100.0 * wanted / rows.max(1) as f64).clamp(0.001, 100.0)
}

fn statement(plan: &TablePlan, order: &Order, with_heirs: bool, percent: f64, ranges: u64) -> String {
    let (mut texts, mut named, mut sorted) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (expression, text)) in order.source_columns().enumerate() {
        texts.push(format!("{text} as t{at}"));
        named.push(format!("t{at}"));
        sorted.push(expression.to_owned());
    }
    let (texts, named, sorted) = (texts.join(", "), named.join(", "), sorted.join(", "));
    let relation = super::relation(plan, with_heirs);
    format!(
        "select {named} from (
            select {texts}, pg_catalog.row_number() over (order by {sorted}) as place, pg_catalog.count(*) over () as total
            from {relation} tablesample system ({percent})) sampled
         where place % greatest(total / {ranges}, 1) = 0 and place < total order by place"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::fixtures::{column, plan_of};
    use crate::types::Conversion;

    #[test]
    fn ranges_are_few_where_each_costs_a_scan() {
        let mut key = column("id", false, Conversion::Int64);
        key.type_oid = 20;
        let indexed = Order::of(&plan_of(vec![key]), |_| false);
        let mut key = column("id", false, Conversion::Uuid);
        key.type_oid = 2950;
        let scanned = Order::of(&plan_of(vec![key]), |_| false);
        assert_eq!(ranges(&indexed, 1_000_000_000, 0), 10_000);
        assert_eq!(ranges(&indexed, 1_000, 640 << 20), 10);
        assert_eq!(ranges(&indexed, 10, 640 << 20), 10);
        assert_eq!(ranges(&scanned, 10_000_000, 0), 32);
        assert_eq!(ranges(&scanned, 1_000_000_000, 0), 500);
        assert_eq!(ranges(&Order::default(), 1_000_000_000, 0), 1);
    }

    #[test]
    fn ranges_have_no_gaps_and_no_ends() {
        let bound = |text: &str| vec![text.to_owned()];
        let ranges = between(&[bound("3"), bound("7")]);
        assert_eq!(ranges[0], Range { from: vec![], to: bound("3") });
        assert_eq!(ranges[1], Range { from: bound("3"), to: bound("7") });
        assert_eq!(ranges[2], Range { from: bound("7"), to: vec![] });
        assert_eq!(between(&[]), [Range::default()]);
    }
}
