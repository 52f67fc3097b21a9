//! How far a table's copy is.
//!
//! Pure.

use millrace_proto::v1::Table;
use millrace_proto::v1::table::State;

/// Whether the table is being copied, for the first time or again.
pub(super) fn is_copying(table: &Table) -> bool {
    !table.copy_cancelled && matches!(table.state(), State::Copying | State::Resyncing)
}

/// Whether every row was read: only the stream has to catch up with it then.
pub(super) fn is_copied(table: &Table) -> bool {
    match table.state() {
        State::Streaming => true,
        State::Copying => table.partitions_total > 0 && table.partitions_done == table.partitions_total,
        _ => false,
    }
}

/// The part of the table that is copied, from 0 to 1. The source's estimate of rows may be off or
/// missing; then the partitions count. It is below 1 until every row was read.
pub(super) fn fraction(table: &Table) -> f64 {
    const ALMOST: f64 = 0.99;
    if is_copied(table) {
        return 1.0;
    }
    let ratio = |part: f64, whole: f64| if whole > 0.0 { (part / whole).clamp(0.0, ALMOST) } else { 0.0 };
    let rows = ratio(table.rows_copied as f64, table.rows_estimated as f64);
    let partitions = ratio(table.partitions_done.into(), table.partitions_total.into());
    if table.rows_estimated > 0 { rows } else { partitions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_whole_only_when_every_row_was_read() {
        let mut table = Table {
            state: State::Copying.into(),
            rows_copied: 20_000,
            rows_estimated: 10_000,
            partitions_total: 4,
            ..Default::default()
        };
        assert_eq!(fraction(&table), 0.99);
        table.rows_copied = 2_500;
        assert_eq!(fraction(&table), 0.25);
        table.rows_estimated = -1;
        table.partitions_done = 1;
        assert_eq!(fraction(&table), 0.25);
        table.partitions_done = 4;
        assert_eq!(fraction(&table), 1.0);
        table.set_state(State::Pending);
        assert_eq!(fraction(&table), 0.99);
    }
}
