//! How far a table's copy is, how fast it goes and when it ends: from one look at a mirror to the next.
//!
//! Pure: the caller says what time it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_proto::v1::table::State;
use millrace_proto::v1::{Mirror, Table};

/// Share of a new measurement in the rate shown: it follows a change within a few seconds, and one
/// slow partition does not make it jump.
const RATE_SHARE: f64 = 0.3;

/// Least time between two measurements of a rate: progress comes in whole batches.
const MEASURE_MIN: Duration = Duration::from_millis(900);

/// Rates of the copies of one mirror.
#[derive(Debug, Default)]
pub(super) struct Rates {
    tables: BTreeMap<String, Meter>,
}

#[derive(Debug, Clone, Copy)]
struct Meter {
    at: Instant,
    rows: i64,
    rows_per_s: Option<f64>,
}

impl Rates {
    /// Takes note of the mirror as it is now.
    pub(super) fn observe(&mut self, mirror: &Mirror, now: Instant) {
        for table in &mirror.tables {
            if !is_copying(table) {
                self.tables.remove(&table.source);
                continue;
            }
            let first = Meter { at: now, rows: table.rows_copied, rows_per_s: None };
            let meter = self.tables.entry(table.source.clone()).or_insert(first);
            let elapsed = now.duration_since(meter.at);
            if table.rows_copied < meter.rows {
                *meter = first; // A new copy has begun.
            } else if elapsed >= MEASURE_MIN {
                let measured = (table.rows_copied - meter.rows) as f64 / elapsed.as_secs_f64();
                // The first rows come after planning and the wait for old transactions: not a rate of 0.
                let old = meter.rows_per_s.or((measured > 0.0).then_some(measured));
                let rate = old.map(|old| old + RATE_SHARE * (measured - old));
                *meter = Meter { at: now, rows: table.rows_copied, rows_per_s: rate };
            }
        }
    }

    /// Rows per second of a table's copy, if it was measured.
    pub(super) fn rows_per_s(&self, table: &Table) -> Option<f64> {
        self.tables.get(&table.source).and_then(|meter| meter.rows_per_s)
    }

    /// Seconds until the table is copied, if that can be told.
    pub(super) fn eta_s(&self, table: &Table) -> Option<f64> {
        let rate = self.rows_per_s(table).filter(|rate| *rate >= 1.0)?;
        let left = table.rows_estimated - table.rows_copied;
        (left > 0).then(|| left as f64 / rate)
    }
}

/// Whether the table is being copied, for the first time or again.
pub(super) fn is_copying(table: &Table) -> bool {
    matches!(table.state(), State::Copying | State::Resyncing)
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

    fn mirror(state: State, rows_copied: i64) -> Mirror {
        let table = Table {
            source: "public.t".into(),
            state: state.into(),
            rows_copied,
            rows_estimated: 10_000,
            partitions_total: 4,
            ..Default::default()
        };
        Mirror { tables: vec![table], ..Default::default() }
    }

    #[test]
    fn a_rate_needs_two_looks_and_follows() {
        let start = Instant::now();
        let mut rates = Rates::default();
        let looks = [(0, 0), (500, 900), (1_000, 1_000), (2_000, 3_000)];
        let mut seen = Vec::new();
        for (ms, rows) in looks {
            let mirror = mirror(State::Copying, rows);
            rates.observe(&mirror, start + Duration::from_millis(ms));
            seen.push((rates.rows_per_s(&mirror.tables[0]), rates.eta_s(&mirror.tables[0])));
        }
        assert_eq!(
            seen,
            [
                (None, None),
                (None, None),
                (Some(1_000.0), Some(9.0)),
                (Some(1_300.0), Some(7_000.0 / 1_300.0))
            ]
        );
        let streaming = mirror(State::Streaming, 10_000);
        rates.observe(&streaming, start + Duration::from_secs(9));
        assert_eq!(rates.rows_per_s(&streaming.tables[0]), None);
    }

    #[test]
    fn a_fraction_is_whole_only_when_every_row_was_read() {
        let mut table = mirror(State::Copying, 20_000).tables.remove(0);
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
