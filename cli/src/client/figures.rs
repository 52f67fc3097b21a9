//! Figures as people read them.
//!
//! Pure.

use millrace_proto::Timestamp;

/// A count with its thousands apart: `1,234,567`.
pub fn count(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size: `512 B`, `1.5 MiB`.
pub fn bytes(value: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = value as f64;
    let mut unit = 0;
    while size.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// A duration: `0.3 s`, `12 s`, `3 min`, `5 h`, `2 d`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// A rate of rows: `350,000 rows/s`.
pub fn rate(rows_per_second: f64) -> String {
    format!("{} rows/s", count(rows_per_second.round() as i64))
}

/// A time in UTC to the second: `2026-11-21T03:27:00Z`; `-` if there is none.
pub fn time(timestamp: Option<&Timestamp>) -> String {
    let time = timestamp.and_then(|time| jiff::Timestamp::new(time.seconds, 0).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        let counts: Vec<_> = [0, 999, 1_000, -1_234_567].map(count).to_vec();
        assert_eq!(counts, ["0", "999", "1,000", "-1,234,567"]);
        let sizes: Vec<_> = [0, 1023, 1024, 3 << 29].map(bytes).to_vec();
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 GiB"]);
        let times: Vec<_> = [0.04, 12.3, 300.0, 7_200.0, 900_000.0].map(duration).to_vec();
        assert_eq!(times, ["0.0 s", "12 s", "5 min", "2 h", "10 d"]);
        assert_eq!(rate(349_999.6), "350,000 rows/s");
        assert_eq!(time(Some(&Timestamp { seconds: 0, nanos: 5 })), "1970-01-01T00:00:00Z");
        assert_eq!(time(None), "-");
    }
}
