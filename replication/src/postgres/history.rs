//! Where a server's log left an older timeline: its timeline history. Pure.

use millrace_terms::Lsn;

/// The position at which the log of this history left `timeline` for the next one; none if it does
/// not come from that timeline. A line is the timeline that was left, the position, and a reason
/// (PostgreSQL source, `src/backend/access/transam/timeline.c`).
pub(super) fn left_at(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let left: u32 = fields.next()?.parse().ok()?;
        (left == timeline).then(|| fields.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str =
        "# a comment\n\n1\t0/3000148\tno recovery target specified\n\n3\t1/A0\tbefore 2026\n";

    #[test]
    fn every_timeline_that_the_log_comes_from_was_left_somewhere() {
        assert_eq!(left_at(HISTORY, 1), Some(Lsn(0x300_0148)));
        assert_eq!(left_at(HISTORY, 3), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(left_at(HISTORY, 2), None, "another branch");
        assert_eq!(left_at(HISTORY, 4), None, "the timeline itself");
    }

    #[test]
    fn a_history_that_cannot_be_read_says_nothing() {
        assert_eq!(left_at("1", 1), None);
        assert_eq!(left_at("1\tnowhere\tx", 1), None);
        assert_eq!(left_at("", 1), None);
    }
}
