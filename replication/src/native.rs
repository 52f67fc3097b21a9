//! ClickHouse's `Native` format: what stands around the columns' data. Pure.
//!
//! A block is the number of its columns, the number of its rows, and for each column its name, its
//! type and its data. Numbers are LEB128, strings have their length in front (ClickHouse documentation,
//! Native; revision 0, which HTTP inserts have, sends nothing else).

use crate::types::push_string;

/// More than the numbers of a block, or the names around a column, need (names have at most 63 bytes
/// on the source, types are short).
pub(crate) const HEADER_BYTES: usize = 256;

/// Begins a block.
pub(crate) fn start_block(columns: usize, rows: usize, out: &mut Vec<u8>) {
    crate::types::push_length(columns, out);
    crate::types::push_length(rows, out);
}

/// A whole column of one text.
pub(crate) fn repeated_text(name: &str, text: &str, rows: usize, out: &mut Vec<u8>) {
    start_column(name, "String", out);
    (0..rows).for_each(|_| push_string(text.as_bytes(), out));
}

/// Begins a column; its data follows.
pub(crate) fn start_column(name: &str, wire_type: &str, out: &mut Vec<u8>) {
    push_string(name.as_bytes(), out);
    push_string(wire_type.as_bytes(), out);
}
