//! How far a mirror is, and how it fares: its tables and streams taken together.
//!
//! Pure: the caller says what time it is.

use jiff::{SignedDuration, Timestamp};

use crate::health::{self, Health, UNATTENDED_MAX};
use crate::mirrors::Mirror;
use crate::state::TableState;
use crate::streams::Stream;
use crate::tables::Table;

/// A rate below this says nothing of when a copy ends.
const ROWS_PER_SECOND_MIN: f64 = 1.0;

/// A mirror's progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// How the stream fares that fares worst.
    pub health: Health,
    /// Rows copied by the running or the last copy of each table.
    pub rows_copied: u64,
    /// Rows of all tables, by the source's own estimate.
    pub rows_estimated: u64,
    /// Rows per second of all copies that run, over the last minute; none if none runs.
    pub copy_rows_per_s: Option<f64>,
    /// Seconds until every table is copied, at that rate; none if that cannot be told.
    pub eta_seconds: Option<f64>,
    /// Rows per second that the streams wrote over the last minute.
    pub stream_rows_per_s: f64,
    /// Bytes by which the stream lags that lags most.
    pub lag_bytes: Option<u64>,
    /// Time by which the stream lags that lags most.
    pub lag_time: Option<SignedDuration>,
}

/// A mirror's progress at `now`.
pub fn of(mirror: &Mirror, now: Timestamp) -> Progress {
    let (tables, streams) = (&mirror.tables, &mirror.streams);
    Progress {
        health: health::worst(streams.iter().map(|stream| health::judge(mirror, stream, now))),
        rows_copied: tables.iter().map(|table| table.copy.rows).sum(),
        rows_estimated: tables.iter().map(rows_estimated).sum(),
        copy_rows_per_s: copy_rate(tables),
        eta_seconds: eta_of_all(tables),
        stream_rows_per_s: streams.iter().map(|stream| stream_rate(stream, now)).sum(),
        lag_bytes: streams.iter().filter_map(Stream::lag_bytes).max(),
        lag_time: streams.iter().filter_map(|stream| stream.lag_time(now)).max(),
    }
}

/// Number of a mirror's tables in one of these states.
pub fn tables_in(mirror: &Mirror, states: &[TableState]) -> u64 {
    mirror.tables.iter().filter(|table| states.contains(&table.state)).count() as u64
}

/// The source's estimate; of a table never analysed it has none, and then the copied part is scaled up.
pub fn rows_estimated(table: &Table) -> u64 {
    let copy = table.copy;
    match (table.rows_estimated, copy.bytes_planned_done) {
        (0, 0) => copy.rows,
        (0, done) => (u128::from(copy.rows) * u128::from(copy.bytes_planned) / u128::from(done)) as u64,
        (rows, _) => rows,
    }
}

/// Rows per second of the table's copy, whole ones, so that what is watched does not change for nothing.
pub fn rows_per_second(table: &Table) -> Option<f64> {
    table.copy_rows_per_s.map(f64::round)
}

/// Seconds until every row of the table is copied, at the present rate.
pub fn eta_seconds(table: &Table) -> Option<f64> {
    seconds(rows_left(table), rows_per_second(table)?)
}

/// Rows per second that the stream wrote over the last minute. Nobody says that they have become none when
/// its attempt is dead.
pub fn stream_rate(stream: &Stream, now: Timestamp) -> f64 {
    let is_told = stream.attended_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < UNATTENDED_MAX);
    if is_told { (stream.rows_per_s * 10.0).round() / 10.0 } else { 0.0 }
}

fn copy_rate(tables: &[Table]) -> Option<f64> {
    tables.iter().filter_map(rows_per_second).reduce(|all, rate| all + rate)
}

/// At the rate of all copies together: they share what source and destination can do.
fn eta_of_all(tables: &[Table]) -> Option<f64> {
    seconds(tables.iter().map(rows_left).sum(), copy_rate(tables)?)
}

/// Rows that are still to be copied, by the estimate. One that is used up says nothing.
fn rows_left(table: &Table) -> u64 {
    match table.state {
        TableState::Pending | TableState::Copying | TableState::Resyncing => {
            rows_estimated(table).saturating_sub(table.copy.rows)
        }
        _ => 0,
    }
}

fn seconds(rows: u64, rows_per_second: f64) -> Option<f64> {
    (rows > 0 && rows_per_second >= ROWS_PER_SECOND_MIN).then(|| (rows as f64 / rows_per_second).round())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_terms::{Lsn, TableName};

    use super::*;
    use crate::copies::CopyProgress;
    use crate::health::tests::{NOW, at, idle, mirror};
    use crate::state::MirrorState;

    fn table(state: TableState, rows: u64, rows_per_s: Option<f64>) -> Table {
        Table {
            id: 1,
            mirror: "shop".into(),
            stream: 0,
            source: TableName::new("public", "orders"),
            oid: 7,
            destination: "orders".into(),
            made: true,
            state,
            state_since: at(80),
            error: None,
            copy_no: 1,
            copying: rows_per_s.is_some(),
            copy_cancelled: false,
            epoch: Some(Lsn(1)),
            read_end: None,
            copy_started_at: Some(at(80)),
            copy_finished_at: None,
            floor: 0,
            rows_estimated: 1_000,
            bytes_total: 64,
            inserts: 0,
            updates: 0,
            deletes: 0,
            truncates: 0,
            bytes_streamed: 0,
            blocked_by: None,
            copy: CopyProgress { rows, ..CopyProgress::default() },
            copy_rows_per_s: rows_per_s,
            edit: None,
            nulled: BTreeMap::new(),
        }
    }

    #[test]
    fn a_copy_ends_when_what_is_left_is_done_at_the_present_rate() {
        let half = table(TableState::Copying, 500, Some(99.6));
        assert_eq!((rows_per_second(&half), eta_seconds(&half)), (Some(100.0), Some(5.0)));
        let waiting = table(TableState::Pending, 0, None);
        assert_eq!(eta_seconds(&waiting), None, "nobody knows when it begins");
        let done = table(TableState::Copying, 1_000, Some(99.6));
        assert_eq!(eta_seconds(&done), None, "the estimate is used up");
        let stuck = table(TableState::Copying, 500, Some(0.2));
        assert_eq!((rows_per_second(&stuck), eta_seconds(&stuck)), (Some(0.0), None));
    }

    #[test]
    fn without_an_estimate_what_is_copied_is_scaled_up() {
        let copy =
            CopyProgress { rows: 10, bytes_planned: 400, bytes_planned_done: 100, ..Default::default() };
        let unknown = Table { rows_estimated: 0, copy, ..table(TableState::Copying, 10, None) };
        assert_eq!(rows_estimated(&unknown), 40);
    }

    #[test]
    fn a_mirror_is_its_tables_and_streams_together() {
        let busy = Stream { rows_per_s: 12.34, ..idle() };
        let behind = Stream { n: 1, position: Some(Lsn(60)), rows_per_s: 12.34, ..idle() };
        let mut mirror = mirror(MirrorState::Snapshot);
        mirror.streams = vec![busy, behind];
        mirror.tables = vec![
            table(TableState::Copying, 500, Some(100.0)),
            table(TableState::Pending, 0, None),
            table(TableState::Streaming, 1_000, None),
        ];
        let shown = of(&mirror, at(NOW));
        assert_eq!((shown.rows_copied, shown.rows_estimated), (1_500, 3_000));
        assert_eq!((shown.copy_rows_per_s, shown.eta_seconds), (Some(100.0), Some(15.0)));
        assert_eq!(shown.stream_rows_per_s, 24.6);
        assert_eq!((shown.lag_bytes, shown.lag_time), (Some(40), Some(SignedDuration::from_secs(5))));
        assert_eq!(shown.health, Health::Idle);
        assert_eq!(tables_in(&mirror, &[TableState::Pending, TableState::Copying]), 2);
        assert_eq!(of(&mirror, at(NOW + 100)).stream_rows_per_s, 0.0, "its attempts are dead");
    }
}
