//! Mirrors as people read them.
//!
//! Pure.

use millrace_proto::v1::{ListMirrorsResponse, Mirror, Stream, Table, stream, table};

use super::progress;
use crate::client::figures;
use crate::client::output::{Column, grid};

/// Where the column of the stream's number stands: behind the state.
const STREAM_AT: usize = 3;

/// One mirror: itself, its streams, its tables.
pub(super) fn mirror(mirror: &Mirror) -> String {
    let mut lines = vec![format!(
        "{}  {}  {} -> {}",
        mirror.name,
        mirror.state().as_str_name(),
        mirror.source,
        mirror.destination
    )];
    lines.extend(copies(mirror));
    if let Some(error) = &mirror.error {
        lines.push(format!("error: {}\n remedy: {}\n   code: {}", error.message, error.remedy, error.code));
    }
    for stream in &mirror.streams {
        lines.push(stream_line(stream));
        if let Some(failure) = &stream.failure {
            lines.push(format!("  remedy: {}\n    code: {}", failure.remedy, failure.code));
        }
        lines.extend(slot_line(stream));
    }
    lines.push(String::new());
    lines.push(tables(&mirror.tables, mirror.streams.len() > 1));
    lines.extend(mirror.tables.iter().filter_map(|table| {
        let error = table.error.as_ref()?;
        Some(format!(
            "\n{}: {}\n remedy: {}\n   code: {}, since {}",
            table.source,
            error.message,
            error.remedy,
            error.code,
            figures::time(error.since.as_ref())
        ))
    }));
    lines.join("\n")
}

/// How far the copies of a mirror are, while there are any.
pub(super) fn copies(mirror: &Mirror) -> Option<String> {
    let progress = mirror.progress.as_ref()?;
    if progress.tables_pending + progress.tables_copying == 0 {
        return None;
    }
    let mut line = format!("{} of {} tables copied", progress.tables_streaming, progress.tables);
    line.extend(pace(progress.copy_rows_per_second, progress.eta_seconds).map(|pace| format!(", {pace}")));
    Some(line)
}

/// How fast rows are copied, and when that ends.
fn pace(rows_per_second: Option<f64>, eta_seconds: Option<f64>) -> Option<String> {
    let rate = rows_per_second.map(figures::rate);
    let left = eta_seconds.map(|seconds| format!("{} left", figures::duration(seconds)));
    let parts: Vec<String> = rate.into_iter().chain(left).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// One stream on one line.
pub(super) fn stream_line(stream: &Stream) -> String {
    let mut line = format!("stream {}: {}", stream.number, verdict(stream));
    if !stream.position.is_empty() {
        line.push_str(&format!(", position {}", stream.position));
    }
    line.push_str(&format!(", lag {}", lag(stream)));
    if stream.rows_per_second > 0.0 {
        line.push_str(&format!(", {}", figures::rate(stream.rows_per_second)));
    }
    if !stream.slot.is_empty() {
        line.push_str(&format!(", slot {}", stream.slot));
    }
    line
}

/// The replication slot of a stream, and when it is full, on a line below the stream's.
fn slot_line(stream: &Stream) -> Option<String> {
    let slot = stream.replication_slot.as_ref()?;
    let mut line = format!(
        "  slot: {}, {}, holds {} of the log",
        if slot.active { "active" } else { "nobody streams from it" },
        slot.wal_status,
        figures::bytes(slot.retained_bytes)
    );
    match slot.limit_bytes {
        Some(limit) => line.push_str(&format!(" of {} at most", figures::bytes(limit))),
        None => line.push_str(", without a limit"),
    }
    if let Some(growth) = slot.growth_bytes_per_second.filter(|growth| *growth >= 1.0) {
        line.push_str(&format!(", grows by {}/s", figures::bytes(growth as i64)));
    }
    if let Some(seconds) = slot.seconds_to_limit {
        line.push_str(&format!(", reaches its limit in {}", figures::duration(seconds)));
    }
    if !slot.invalidation_reason.is_empty() {
        line.push_str(&format!(", invalidated: {}", slot.invalidation_reason));
    }
    Some(line)
}

/// How a stream fares, with the reason if it does not.
pub(super) fn verdict(stream: &Stream) -> String {
    match stream.verdict() {
        stream::Verdict::Unspecified => "not started".to_owned(),
        stream::Verdict::Stalled => match &stream.failure {
            Some(failure) => format!("STALLED ({}: {})", failure.code, failure.message),
            None => format!("STALLED ({})", stream.reason),
        },
        verdict => verdict.as_str_name().to_owned(),
    }
}

/// A stream's lag, in bytes and seconds as far as they are known.
pub(super) fn lag(stream: &Stream) -> String {
    let bytes = stream.lag_bytes.map(figures::bytes);
    let seconds = stream.lag_seconds.map(figures::duration);
    match (bytes, seconds) {
        (Some(bytes), Some(seconds)) => format!("{bytes}, {seconds}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "unknown".to_owned(),
    }
}

/// `spread`: whether they are shared out over several streams.
fn tables(tables: &[Table], spread: bool) -> String {
    let mut columns = vec![
        Column::Text("TABLE"),
        Column::Text("DESTINATION"),
        Column::Text("STATE"),
        Column::Number("COPIED"),
        Column::Number("%"),
        Column::Number("INSERTS"),
        Column::Number("UPDATES"),
        Column::Number("DELETES"),
        Column::Number("TRUNCATES"),
        Column::Text("NOTE"),
    ];
    if spread {
        columns.insert(STREAM_AT, Column::Number("STREAM"));
    }
    let rows = tables.iter().map(|table| {
        let mut row = vec![
            table.source.clone(),
            table.destination.clone(),
            table.state().as_str_name().to_owned(),
            figures::count(table.rows_copied),
            percent(table),
            figures::count(table.inserts),
            figures::count(table.updates),
            figures::count(table.deletes),
            figures::count(table.truncates),
            note(table),
        ];
        if spread {
            row.insert(STREAM_AT, table.stream.to_string());
        }
        row
    });
    grid(&columns, rows)
}

/// How much of the table is copied, while that says something.
pub(super) fn percent(table: &Table) -> String {
    match table.state() {
        table::State::Streaming | table::State::Copying => {
            format!("{:.0}", progress::fraction(table) * 100.0)
        }
        _ => "-".to_owned(),
    }
}

/// What a person should know about the table now.
pub(super) fn note(table: &Table) -> String {
    match &table.error {
        Some(error) => error.code.clone(),
        None if table.copy_cancelled => "copy cancelled".to_owned(),
        None if !table.blocked_by.is_empty() => format!("waits for {}", table.blocked_by),
        None => pace(table.rows_per_second, table.eta_seconds).unwrap_or_default(),
    }
}

/// The stream that stands for all: one that is stalled, else the one that lags most.
fn worst(streams: &[Stream]) -> Option<&Stream> {
    let badness = |stream: &&Stream| (stream.verdict() == stream::Verdict::Stalled, stream.lag_bytes);
    // Of equals the first.
    streams.iter().rev().max_by_key(badness)
}

/// Many mirrors.
pub(super) fn mirrors(list: &ListMirrorsResponse) -> String {
    let columns = [
        Column::Text("NAME"),
        Column::Text("STATE"),
        Column::Text("SOURCE"),
        Column::Text("DESTINATION"),
        Column::Number("TABLES"),
        Column::Text("STREAM"),
        Column::Text("LAG"),
    ];
    let rows = list.mirrors.iter().map(|mirror| {
        let stream = worst(&mirror.streams);
        vec![
            mirror.name.clone(),
            mirror.state().as_str_name().to_owned(),
            mirror.source.clone(),
            mirror.destination.clone(),
            mirror.tables.len().to_string(),
            stream.map(verdict).unwrap_or_default(),
            stream.map(lag).unwrap_or_default(),
        ]
    });
    grid(&columns, rows)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use millrace_proto::v1::{self, mirror};

    pub(in crate::mirror) fn shop() -> Mirror {
        let copying = Table {
            source: "public.orders".into(),
            destination: "orders".into(),
            state: table::State::Copying.into(),
            rows_copied: 120_000,
            rows_estimated: 200_000,
            rows_per_second: Some(40_000.0),
            eta_seconds: Some(2.0),
            ..Default::default()
        };
        let failed = Table {
            source: "public.log".into(),
            destination: "log".into(),
            state: table::State::Error.into(),
            error: Some(v1::Failure {
                code: "TABLE_SCHEMA_CHANGED".into(),
                message: "the key changed".into(),
                remedy: "Resync the table.".into(),
                since: None,
            }),
            ..Default::default()
        };
        let stream = Stream {
            slot: "millrace_a1b2c3_shop".into(),
            position: "0/1A2B3C".into(),
            lag_bytes: Some(2048),
            lag_seconds: Some(0.25),
            rows_per_second: 12.0,
            verdict: stream::Verdict::Healthy.into(),
            replication_slot: Some(v1::ReplicationSlot {
                active: true,
                wal_status: "reserved".into(),
                retained_bytes: 3 << 30,
                limit_bytes: Some(10 << 30),
                growth_bytes_per_second: Some(1_048_576.0),
                seconds_to_limit: Some(7_168.0),
                ..Default::default()
            }),
            ..Default::default()
        };
        Mirror {
            name: "shop".into(),
            state: mirror::State::Degraded.into(),
            source: "shop-pg".into(),
            destination: "warehouse".into(),
            tables: vec![copying, failed],
            streams: vec![stream],
            progress: Some(v1::MirrorProgress {
                tables: 2,
                tables_copying: 1,
                tables_in_error: 1,
                copy_rows_per_second: Some(40_000.0),
                eta_seconds: Some(2.0),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_mirror_shows_its_stream_its_tables_and_what_is_wrong() {
        insta::assert_snapshot!(super::mirror(&shop()), @r"
        shop  DEGRADED  shop-pg -> warehouse
        0 of 2 tables copied, 40,000 rows/s, 2.0 s left
        stream 0: HEALTHY, position 0/1A2B3C, lag 2.0 KiB, 0.2 s, 12 rows/s, slot millrace_a1b2c3_shop
          slot: active, reserved, holds 3.0 GiB of the log of 10.0 GiB at most, grows by 1.0 MiB/s, reaches its limit in 119 min

        TABLE          DESTINATION  STATE     COPIED   %  INSERTS  UPDATES  DELETES  TRUNCATES  NOTE
        public.orders  orders       COPYING  120,000  60        0        0        0          0  40,000 rows/s, 2.0 s left
        public.log     log          ERROR          0   -        0        0        0          0  TABLE_SCHEMA_CHANGED

        public.log: the key changed
         remedy: Resync the table.
           code: TABLE_SCHEMA_CHANGED, since -
        ");
    }

    #[test]
    fn of_several_streams_all_are_shown_and_a_list_shows_the_worst() {
        let mut mirror = shop();
        let behind = Stream { number: 1, lag_bytes: Some(5 << 20), ..mirror.streams[0].clone() };
        let stalled = Stream {
            number: 2,
            verdict: stream::Verdict::Stalled.into(),
            reason: "SLOT_IN_USE: another".into(),
            ..mirror.streams[0].clone()
        };
        mirror.streams.push(behind);
        mirror.tables[1].stream = 1;
        assert_eq!(worst(&mirror.streams).map(|stream| stream.number), Some(1));
        mirror.streams.push(stalled);
        assert_eq!(worst(&mirror.streams).map(|stream| stream.number), Some(2));
        insta::assert_snapshot!(super::mirror(&mirror), @r"
        shop  DEGRADED  shop-pg -> warehouse
        0 of 2 tables copied, 40,000 rows/s, 2.0 s left
        stream 0: HEALTHY, position 0/1A2B3C, lag 2.0 KiB, 0.2 s, 12 rows/s, slot millrace_a1b2c3_shop
          slot: active, reserved, holds 3.0 GiB of the log of 10.0 GiB at most, grows by 1.0 MiB/s, reaches its limit in 119 min
        stream 1: HEALTHY, position 0/1A2B3C, lag 5.0 MiB, 0.2 s, 12 rows/s, slot millrace_a1b2c3_shop
          slot: active, reserved, holds 3.0 GiB of the log of 10.0 GiB at most, grows by 1.0 MiB/s, reaches its limit in 119 min
        stream 2: STALLED (SLOT_IN_USE: another), position 0/1A2B3C, lag 2.0 KiB, 0.2 s, 12 rows/s, slot millrace_a1b2c3_shop
          slot: active, reserved, holds 3.0 GiB of the log of 10.0 GiB at most, grows by 1.0 MiB/s, reaches its limit in 119 min

        TABLE          DESTINATION  STATE    STREAM   COPIED   %  INSERTS  UPDATES  DELETES  TRUNCATES  NOTE
        public.orders  orders       COPYING       0  120,000  60        0        0        0          0  40,000 rows/s, 2.0 s left
        public.log     log          ERROR         1        0   -        0        0        0          0  TABLE_SCHEMA_CHANGED

        public.log: the key changed
         remedy: Resync the table.
           code: TABLE_SCHEMA_CHANGED, since -
        ");
    }

    #[test]
    fn a_list_has_one_line_a_mirror() {
        let list = ListMirrorsResponse { mirrors: vec![shop()], ..Default::default() };
        insta::assert_snapshot!(mirrors(&list), @r"
        NAME  STATE     SOURCE   DESTINATION  TABLES  STREAM   LAG
        shop  DEGRADED  shop-pg  warehouse         2  HEALTHY  2.0 KiB, 0.2 s
        ");
    }
}
