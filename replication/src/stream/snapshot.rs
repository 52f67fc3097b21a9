//! Whether a transaction is visible in a snapshot. Pure.
//!
//! The server sends a transaction as soon as its commit is in the log; for a moment, or as long as a
//! synchronous standby takes, new snapshots do not see it yet. What is read from a table in that time
//! is from before the change.

use millrace_terms::{Code, Error, Result};

/// `pg_snapshot`: `xmin:xmax:in progress,...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmax: u64,
    in_progress: Vec<u64>,
}

impl Snapshot {
    /// Reads the form in which the server writes it.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` if it is another one.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::new(Code::ProtocolViolation, "the source's snapshot is malformed");
        let mut parts = text.split(':');
        let (Some(_), Some(xmax), Some(list), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| malformed());
        let in_progress = list.split(',').filter(|id| !id.is_empty()).map(number).collect::<Result<_>>()?;
        Ok(Self { xmax: number(xmax)?, in_progress })
    }

    /// Whether a committed transaction is visible, by the lower half of its id: of the ids with that
    /// half the one nearest to the snapshot's end is meant, because no live id is further away than
    /// 2^31.
    pub(super) fn sees(&self, xid: u32) -> bool {
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        let full = self.xmax.saturating_add_signed(i64::from(distance));
        full < self.xmax && !self.in_progress.contains(&full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_is_seen() {
        let snapshot = Snapshot::parse("100:105:101,103").unwrap();
        let seen: Vec<u32> = (98..108).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [98, 99, 100, 102, 104]);
        assert!(Snapshot::parse("100:100:").unwrap().sees(99));
        for bad in ["", "1:2", "a:b:c", "1:2:3:4", "1:2:x"] {
            assert!(Snapshot::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_compared_across_the_wrap_of_their_lower_half() {
        let epoch = 1_u64 << 32;
        let snapshot = Snapshot::parse(&format!("{}:{}:{}", epoch - 5, epoch + 5, epoch + 2)).unwrap();
        assert!(snapshot.sees(u32::MAX) && snapshot.sees(1) && !snapshot.sees(2) && !snapshot.sees(5));
    }
}
