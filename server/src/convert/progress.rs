//! A mirror's progress as the API shows it.
//!
//! Pure: the caller says what time it is.

use catalog::mirrors::Mirror;
use catalog::progress::{self, tables_in};
use catalog::state::TableState;
use catalog::tables::Table;
use jiff::Timestamp;
use millrace_catalog as catalog;
use millrace_proto::v1;

use super::stream::verdict;
use super::view::{count, failure, small};

/// A mirror's progress at `now`.
pub(crate) fn progress(mirror: &Mirror, now: Timestamp) -> v1::MirrorProgress {
    let progress = progress::of(mirror, now);
    let tables = |states: &[TableState]| small(tables_in(mirror, states));
    let sum = |of: fn(&Table) -> u64| count(mirror.tables.iter().map(of).sum());
    v1::MirrorProgress {
        verdict: verdict(&progress.health).into(),
        failure: progress.health.reason().map(failure),
        tables: small(mirror.tables.len() as u64),
        tables_pending: tables(&[TableState::Pending]),
        tables_copying: tables(&[TableState::Copying, TableState::Resyncing]),
        tables_streaming: tables(&[TableState::Streaming]),
        tables_paused: tables(&[TableState::Paused]),
        tables_in_error: tables(&[TableState::Error]),
        rows_copied: count(progress.rows_copied),
        rows_estimated: count(progress.rows_estimated),
        copy_rows_per_second: progress.copy_rows_per_s,
        eta_seconds: progress.eta_seconds,
        stream_rows_per_second: progress.stream_rows_per_s,
        inserts: sum(|table| table.inserts),
        updates: sum(|table| table.updates),
        deletes: sum(|table| table.deletes),
        truncates: sum(|table| table.truncates),
        lag_bytes: progress.lag_bytes.map(count),
        lag_seconds: progress.lag_time.map(|lag| lag.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use catalog::state::MirrorState;

    use super::super::view::tests::{at, stored_mirror};
    use super::*;

    #[test]
    fn a_mirror_shows_its_tables_and_streams_together() {
        let mut mirror = stored_mirror();
        mirror.tables.push(Table { state: TableState::Streaming, truncates: 2, ..mirror.tables[0].clone() });
        let shown = progress(&mirror, at(100));
        assert_eq!((shown.tables, shown.tables_copying, shown.tables_streaming), (2, 1, 1));
        assert_eq!((shown.rows_copied, shown.rows_estimated), (1_000, 2_000));
        assert_eq!((shown.inserts, shown.truncates), (6, 2));
        assert_eq!((shown.lag_bytes, shown.lag_seconds), (Some(128), Some(5.0)));
        assert_eq!(shown.verdict(), v1::stream::Verdict::Healthy);
        assert!(shown.failure.is_none());
    }

    #[test]
    fn a_mirror_that_is_paused_says_why_nothing_comes() {
        let paused = Mirror { state: MirrorState::Paused, ..stored_mirror() };
        let shown = progress(&paused, at(100));
        assert_eq!(shown.verdict(), v1::stream::Verdict::Stalled);
        let failure = shown.failure.unwrap();
        assert_eq!(failure.code, "MIRROR_STATE");
        assert!(failure.remedy.contains("mirror resume shop"), "{}", failure.remedy);
    }
}
