//! `google.protobuf.Timestamp`, whose JSON ends with `Z`: one form for times that are compared as text.
//!
//! Pure: no I/O.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in seconds and nanoseconds since 1970. In JSON text of RFC 3339: written in UTC with `Z` and 0,
/// 3, 6 or 9 digits below the second, as proto3 has it; read with any offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970 began.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of that second, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::new(self.seconds, self.nanos).map_err(serde::ser::Error::custom)?;
        let digits = match time.subsec_nanosecond() {
            0 => 0,
            nanos if nanos % 1_000_000 == 0 => 3,
            nanos if nanos % 1_000 == 0 => 6,
            _ => 9,
        };
        serializer.collect_str(&format_args!("{time:.digits$}"))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as 2026-01-31T12:00:00Z")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
        let time: jiff::Timestamp =
            text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
        // Before 1970 jiff counts both parts down; protobuf counts nanoseconds up from the second before.
        let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
        Ok(match nanos < 0 {
            true => Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 },
            false => Timestamp { seconds, nanos },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_read_with_any_offset() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_769_860_800, 500_000_000, "2026-01-31T12:00:00.500Z"),
            (1_769_860_800, 123_456_000, "2026-01-31T12:00:00.123456Z"),
            (1_769_860_800, 1, "2026-01-31T12:00:00.000000001Z"),
            (-1, 500_000_000, "1969-12-31T23:59:59.500Z"),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(serde_json::to_value(time).unwrap(), text);
            assert_eq!(serde_json::from_value::<Timestamp>(text.into()).unwrap(), time);
        }
        let offset = serde_json::from_str::<Timestamp>("\"2026-01-31T13:00:00+01:00\"").unwrap();
        assert_eq!(offset.seconds, 1_769_860_800);
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
        assert!(serde_json::to_value(Timestamp { seconds: i64::MAX, nanos: 0 }).is_err());
    }
}
