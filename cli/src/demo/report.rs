//! What the demo found, and the line of JSON that says so.
//!
//! Pure.

use std::time::Duration;

use serde::Serialize;

/// What the demo found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every table is the same on both sides.
    pub equal: bool,
    /// Rows compared.
    pub rows: u64,
    /// Rows that were copied.
    pub snapshot_rows: u64,
    /// Changed rows that were streamed.
    pub stream_rows: u64,
    /// Rows copied a second, from the creation of the mirror to its last table's copy.
    pub snapshot_rows_per_s: f64,
    /// Changed rows streamed a second, while the source wrote as fast as it could.
    pub stream_rows_per_s: f64,
    /// From the commit on the source to the row's being seen in ClickHouse.
    pub latency_ms: Latency,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the samples are faster.
    pub p50: f64,
    /// 95 of 100 are faster.
    pub p95: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
}

impl Latency {
    /// The percentiles of samples; zeros without any.
    pub fn of(samples: &[Duration]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(rank).map_or(0.0, |sample| round(sample.as_secs_f64() * 1000.0))
        };
        Self { p50: at(50), p95: at(95), p99: at(99) }
    }
}

/// Rows a second.
pub fn rate(rows: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { round(rows as f64 / seconds) } else { 0.0 }
}

/// One decimal: what is after it is noise.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_documented_form() {
        let samples: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let report = Report {
            equal: true,
            rows: 3,
            snapshot_rows: 2,
            stream_rows: 1,
            snapshot_rows_per_s: rate(2, Duration::from_secs(4)),
            stream_rows_per_s: rate(1, Duration::ZERO),
            latency_ms: Latency::of(&samples),
        };
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap(), @r#"{"equal":true,"rows":3,"snapshot_rows":2,"stream_rows":1,"snapshot_rows_per_s":0.5,"stream_rows_per_s":0.0,"latency_ms":{"p50":50.0,"p95":95.0,"p99":99.0}}"#);
        assert_eq!(Latency::of(&[]), Latency::default());
    }
}
