//! Replication slots as they are seen, and how fast they fill.
//!
//! Pure: no I/O.

use jiff::Timestamp;
use millrace_terms::Lsn;
use serde::{Deserialize, Serialize};

/// A slot that reaches its limit within so many seconds at the present rate is at risk: an hour is what
/// somebody needs who is called.
pub const AT_RISK_SECONDS: f64 = 3_600.0;

/// Least time between two looks of which a rate is made: the log grows by whole records, a shorter time
/// says nothing.
const RATE_SECONDS_MIN: f64 = 1.0;

/// A slot as the source shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLook {
    /// Process that streams from it.
    pub active_pid: Option<i32>,
    /// PostgreSQL's `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// From where the log is kept; none if the slot is lost.
    pub restart: Option<Lsn>,
    /// Everything that was committed below has been acknowledged.
    pub confirmed: Option<Lsn>,
    /// Where the source's log ends.
    pub current: Lsn,
    /// Bytes that it may hold (`max_slot_wal_keep_size`); none without a limit.
    pub limit_bytes: Option<u64>,
    /// Bytes that may still be written before it is lost; none without a limit, and if it is lost.
    pub safe_bytes: Option<u64>,
    /// Why the source invalidated it; none if it did not.
    pub invalidation: Option<String>,
}

impl SlotLook {
    /// Bytes of log that the source keeps for it.
    pub fn retained_bytes(&self) -> u64 {
        self.restart.map_or(0, |restart| self.current.bytes_since(restart))
    }

    /// Bytes of log that are not acknowledged.
    pub fn lag_bytes(&self) -> u64 {
        self.confirmed.map_or(0, |confirmed| self.current.bytes_since(confirmed))
    }
}

/// A slot as it was seen last, and what changed since the time before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotSeen {
    /// The slot.
    pub look: SlotLook,
    /// When.
    pub at: Timestamp,
    /// Bytes per second by which the log that is kept for it grew; less than 0 if it shrank. None at first.
    pub growth_bytes_per_s: Option<f64>,
    /// Bytes of log per second that the source wrote. None at first, and if the log is another one.
    pub wal_bytes_per_s: Option<f64>,
}

impl SlotSeen {
    /// A slot seen at `at`, after it was seen as `before`.
    pub fn new(look: SlotLook, at: Timestamp, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.look.current <= look.current);
        let seconds = before.map(|before| at.duration_since(before.at).as_secs_f64());
        let rate = |change: fn(&SlotLook, &SlotLook) -> f64| {
            let seconds = seconds.filter(|seconds| *seconds >= RATE_SECONDS_MIN)?;
            Some((change(&before?.look, &look) / seconds).round())
        };
        let growth_bytes_per_s =
            rate(|before, now| now.retained_bytes() as f64 - before.retained_bytes() as f64);
        let wal_bytes_per_s = rate(|before, now| now.current.bytes_since(before.current) as f64);
        Self { growth_bytes_per_s, wal_bytes_per_s, look, at }
    }

    /// Seconds until it holds more of the log than it may, at the rate at which that grows. None without a
    /// limit, and while it does not grow.
    pub fn seconds_to_limit(&self) -> Option<f64> {
        let growth = self.growth_bytes_per_s.filter(|growth| *growth >= 1.0)?;
        Some((self.look.safe_bytes? as f64 / growth).round())
    }

    /// Whether it is lost, or will be before long.
    pub fn is_at_risk(&self) -> bool {
        matches!(self.look.wal_status.as_str(), "unreserved" | "lost")
            || self.look.invalidation.is_some()
            || self.seconds_to_limit().is_some_and(|seconds| seconds < AT_RISK_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(restart: u64, current: u64) -> SlotLook {
        SlotLook {
            active_pid: None,
            wal_status: "reserved".into(),
            restart: Some(Lsn(restart)),
            confirmed: Some(Lsn(restart + 10)),
            current: Lsn(current),
            limit_bytes: Some(10_000),
            safe_bytes: Some(6_000),
            invalidation: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_slot_tells_how_fast_it_fills_and_when_it_is_full() {
        let first = SlotSeen::new(look(100, 1_000), at(0), None);
        assert_eq!((first.look.retained_bytes(), first.look.lag_bytes()), (900, 890));
        assert_eq!((first.growth_bytes_per_s, first.seconds_to_limit()), (None, None));

        let held = SlotSeen::new(look(100, 1_300), at(30), Some(&first));
        assert_eq!((held.growth_bytes_per_s, held.wal_bytes_per_s), (Some(10.0), Some(10.0)));
        assert_eq!((held.seconds_to_limit(), held.is_at_risk()), (Some(600.0), true));

        let consumed = SlotSeen::new(look(1_000, 1_600), at(60), Some(&held));
        assert_eq!((consumed.growth_bytes_per_s, consumed.wal_bytes_per_s), (Some(-20.0), Some(10.0)));
        assert_eq!((consumed.seconds_to_limit(), consumed.is_at_risk()), (None, false));
    }

    #[test]
    fn two_looks_at_once_or_at_another_log_make_no_rate() {
        let first = SlotSeen::new(look(100, 1_000), at(0), None);
        assert_eq!(SlotSeen::new(look(100, 2_000), at(0), Some(&first)).growth_bytes_per_s, None);
        assert_eq!(SlotSeen::new(look(100, 900), at(30), Some(&first)).wal_bytes_per_s, None);
    }

    #[test]
    fn a_slot_without_a_limit_is_never_full_but_may_be_lost() {
        let unlimited = SlotLook { limit_bytes: None, safe_bytes: None, ..look(100, 1_000) };
        let first = SlotSeen::new(unlimited.clone(), at(0), None);
        let later =
            SlotSeen::new(SlotLook { current: Lsn(9_000), ..unlimited.clone() }, at(10), Some(&first));
        assert_eq!((later.seconds_to_limit(), later.is_at_risk()), (None, false));
        let lost = SlotLook { wal_status: "lost".into(), restart: None, ..unlimited };
        assert!(SlotSeen::new(lost, at(20), Some(&later)).is_at_risk());
    }
}
