//! Which stream of a mirror a table belongs to: decided once, when the table is added, and kept.
//!
//! What a stream has to decode are changes, and nobody knows beforehand how many there will be. The size of
//! a table is the best guess that there is.
//!
//! Pure: no I/O.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use millrace_terms::TableName;

use crate::mirrors::NewTable;
use crate::tables::Table;

/// What a table weighs at least, in bytes: many small or empty tables are spread as well, for a small one
/// may be written to as often as a large one.
const BYTES_LEAST: u64 = 1 << 20;

/// Bytes that each of `streams` streams carries, by what these tables weigh.
pub fn carried<'t>(streams: u32, tables: impl Iterator<Item = &'t Table>) -> Vec<u64> {
    let mut carried = vec![0; streams as usize];
    for table in tables {
        add(&mut carried, table.stream, table.bytes_total);
    }
    carried
}

/// Assigns tables to streams that carry so much already: the largest first, each to the stream that then
/// carries least. A table that is `bound` goes to the stream where it was: what it left in the destination
/// bears versions of that stream's base, and its new rows must be comparable with those.
pub fn assign(tables: &mut [NewTable], carried: Vec<u64>, bound: &BTreeMap<TableName, u32>) {
    let mut carried = carried;
    let (mut kept, mut free): (Vec<&mut NewTable>, Vec<&mut NewTable>) =
        tables.iter_mut().partition(|table| bound.contains_key(&table.source));
    for table in &mut kept {
        table.stream = bound.get(&table.source).copied().unwrap_or_default();
        add(&mut carried, table.stream, table.bytes_total);
    }
    // Stable, so that equal ones are spread in the order in which they were asked for.
    free.sort_by_key(|table| Reverse(table.bytes_total.max(BYTES_LEAST)));
    for table in free {
        table.stream = least(&carried);
        add(&mut carried, table.stream, table.bytes_total);
    }
}

/// The stream that carries least; of equals the first.
fn least(carried: &[u64]) -> u32 {
    (0..).zip(carried).min_by_key(|(_, bytes)| **bytes).map_or(0, |(stream, _)| stream)
}

fn add(carried: &mut [u64], stream: u32, bytes: u64) {
    if let Some(sum) = carried.get_mut(stream as usize) {
        *sum = sum.saturating_add(bytes.max(BYTES_LEAST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn tables(bytes: &[u64]) -> Vec<NewTable> {
        let table = |(n, bytes): (usize, &u64)| NewTable {
            stream: 0,
            source: TableName::new("public", format!("t{n}")),
            oid: 1,
            destination: format!("t{n}"),
            plan: serde_json::Value::Null,
            rows_estimated: 0,
            bytes_total: *bytes,
        };
        bytes.iter().enumerate().map(table).collect()
    }

    fn assigned(bytes: &[u64], carried: &[u64], bound: &[(&str, u32)]) -> Vec<u32> {
        let mut tables = tables(bytes);
        let bound = bound.iter().map(|(name, n)| (TableName::new("public", *name), *n)).collect();
        assign(&mut tables, carried.to_vec(), &bound);
        tables.iter().map(|table| table.stream).collect()
    }

    #[test]
    fn the_largest_go_first_each_to_the_stream_that_carries_least() {
        assert_eq!(assigned(&[GIB, 5 * GIB, 3 * GIB, 2 * GIB], &[0, 0], &[]), [0, 0, 1, 1]);
        assert_eq!(assigned(&[GIB; 5], &[0; 3], &[]), [0, 1, 2, 0, 1]);
        assert_eq!(assigned(&[GIB, GIB], &[0], &[]), [0, 0], "one stream carries everything");
    }

    #[test]
    fn empty_tables_are_spread_as_well() {
        assert_eq!(assigned(&[0; 7], &[0; 3], &[]), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(assigned(&[0, 8192, GIB], &[0, 0], &[]), [1, 1, 0]);
    }

    #[test]
    fn a_table_that_is_added_goes_to_the_least_loaded_stream() {
        assert_eq!(assigned(&[GIB], &[2 * GIB, GIB, 3 * GIB], &[]), [1]);
        assert_eq!(assigned(&[GIB, GIB], &[2 * GIB, GIB, 3 * GIB], &[]), [1, 0]);
    }

    #[test]
    fn a_table_that_was_here_before_goes_to_the_stream_where_it_was() {
        assert_eq!(assigned(&[GIB, GIB], &[9 * GIB, 0], &[("t0", 0)]), [0, 1]);
        assert_eq!(assigned(&[GIB, 0], &[0, 0], &[("t0", 1)]), [1, 0], "and counts there");
    }

    #[test]
    fn every_table_is_in_one_of_the_streams_and_none_carries_much_more_than_its_share() {
        let sizes: Vec<u64> = (1..200).map(|n: u64| n.wrapping_mul(2_654_435_761) % GIB).collect();
        let (total, largest): (u64, u64) = (sizes.iter().sum(), *sizes.iter().max().unwrap());
        for streams in 1..=16_u64 {
            let assigned = assigned(&sizes, &vec![0; streams as usize], &[]);
            let mut sums = vec![0; streams as usize];
            assigned.iter().zip(&sizes).for_each(|(n, bytes)| sums[*n as usize] += bytes);
            assert!(sums.iter().all(|sum| *sum <= total / streams + largest), "{streams}: {sums:?}");
        }
    }
}
