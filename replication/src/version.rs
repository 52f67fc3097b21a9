//! The version of a row, and why it makes the destination equal to the source. Pure.
//!
//! # The claim
//!
//! A destination table keeps, of all rows with one key, the one of the highest version; a tombstone
//! counts as a row and hides the key. If every change that the stream delivers and every row that a
//! copy reads is inserted *at least once*, in *any order*, under the versions below, then for each
//! key what is kept is what the source has. So inserts are idempotent and commutative: batches are
//! retried, repeated after a crash, sent in parallel, and arrive in any order. The only thing that
//! has to be remembered is how far everything has arrived.
//!
//! # The version of a change
//!
//! [`Version::of`] is (`base` + commit LSN, record LSN), the first in the upper 64 bits.
//!
//! - *Between transactions.* A transaction can change a key's row, or take a key, only when the
//!   transaction that held it before is over: it waits for the row's lock, or in the unique index.
//!   A transaction that is over has its commit record in the log before the waiting one writes its
//!   own. So along one key commit LSNs grow.
//! - *Inside a transaction* changes are delivered in the order of their records, and the later record
//!   has the higher LSN. Rows of one multi-insert share a record, but never a key, because the index
//!   is unique and checked at once (a deferrable key is refused for this very reason).
//! - Both numbers are properties of the log: a repeat bears the same versions, whatever was published
//!   or left out in between. (A count of changes would not.)
//!
//! The record LSN *alone* is not enough: an INSERT, and an UPDATE that takes a key, writes its record
//! before its unique check waits. T1 inserts k; T2 inserts k and waits; T1 deletes k and commits; T2
//! commits. The tombstone's record lies behind that of the row which is there in the end. The commit
//! LSN alone is not enough either: changes of one transaction would tie.
//!
//! # The version of a copied row
//!
//! [`Version::epoch`] is (`base` + E, 0), where E is the copy's epoch (see `postgres::epoch`): read
//! when the slot existed and the publication named the table, and followed by a wait until every
//! transaction that had an id by then was over and visible. A transaction that was not over at the
//! end of the wait got its id after E was read; so its commit lies above E, it began after the slot
//! was consistent and after the publication named the table, and it is delivered whole. From then on
//! each page may be read at any time, each in a transaction of its own:
//!
//! - a change that the copy *saw*, committed below E: the copied row holds that state or a later one,
//!   and its version is higher than the change's;
//! - a change it saw, committed above E: if it is delivered, its version is higher than the copied
//!   row's, and so is that of every later change of the key, the last of which is kept; if it is not
//!   (it was made before the publication named the table, by a transaction that was over when
//!   reading began), the copied row holds it or what came after;
//! - a change it did *not* see was not over when its page was read, so its commit is above E, and it
//!   is delivered;
//! - a row that an UPDATE moves from a page not yet read to one already read is read by neither
//!   transaction: that UPDATE was not over when the wait ended, so it is delivered;
//! - what moves rows without changing them, such as VACUUM FULL, is found by the table's file, which
//!   is then another one; the pages are planned and read again (see `copy`).
//!
//! A key that was deleted before the copy read its page, and whose row an earlier copy had written,
//! has no row in this copy and perhaps no change in the stream. It is swept: when the position has
//! passed the end of the last read, rows of a version below E's are deleted. A row that is there has
//! by then a version of at least E's.
//!
//! # What is not commutative
//!
//! A physical delete, of a TRUNCATE or a sweep, forgets tombstones; an insert of an older version that
//! arrives afterwards would bring its row back. Therefore a TRUNCATE of version t waits until the
//! table's earlier batches have arrived, and deletes by `version < t`, so that later rows may already
//! be there; the highest such t is the table's *floor*, nothing below it is inserted any more, and the
//! delete is repeated until no insert begun before it can still be alive. An unchanged TOAST value is
//! not in the log; what is read instead is read in a snapshot that sees the change, so it is that
//! value or a later one, whose own change has the higher version and follows (see `stream`).
//!
//! # Logs that fork
//!
//! All this is about one log. A log that forked from it, or that of another cluster, has positions of its
//! own, which may lie below or tie with those of changes that were written and are gone. `base` sets it
//! apart: it is raised above everything that was written or may have been, and every table is copied with
//! an epoch of the new log, and swept. What may have been written is bounded: nothing is sent before its
//! commit lies below `written_below`, which is stored; the same for what is read of the source beside the
//! log, which holds effects of commits up to the end of the log behind the answer. When a stream ends, the
//! bound comes down to what was sent (see `stream::run`), so that a log that forked above it is followed.
//!
//! # The position
//!
//! It is the end of the commit record of the last transaction up to which, without a gap, everything
//! has arrived. Not a record's LSN: those go backwards between transactions.

use millrace_terms::Lsn;

/// The version of a row: `_version` in ClickHouse, a `UInt128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u128);

impl Version {
    /// The version of a change: `base` sets this log apart from those the source had before (0 until
    /// its first failover into another log), `commit` is the LSN of the transaction's commit record,
    /// which its first message tells, `record` that of the change's own record.
    ///
    /// `base` + `commit` stays below 2^64: `base` is raised to what was once written, and a log of
    /// 2^64 bytes would take centuries. Beyond it versions would tie, not wrap.
    pub fn of(base: u64, commit: Lsn, record: Lsn) -> Self {
        Self(u128::from(base.saturating_add(commit.0)) << 64 | u128::from(record.0))
    }

    /// The version of the rows that a copy with epoch `epoch` reads, below which its sweep deletes.
    pub fn epoch(base: u64, epoch: Lsn) -> Self {
        Self::of(base, epoch, Lsn::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_decides_between_transactions_and_the_record_inside_one() {
        let of = |commit, record| Version::of(0, Lsn(commit), Lsn(record));
        // T1 inserts k (record 10), T2 inserts k and waits (20), T1 deletes k (30) and commits (40),
        // T2 commits (50): T2's row must win over the tombstone, though its record is older.
        let (tombstone, row) = (of(40, 30), of(50, 20));
        assert!(row > tombstone);
        assert!(of(50, 21) > of(50, 20));
    }

    #[test]
    fn an_epoch_lies_between_the_commits_around_it() {
        let epoch = Version::epoch(7, Lsn(100));
        assert!(Version::of(7, Lsn(99), Lsn(u64::MAX)) < epoch);
        assert!(Version::of(7, Lsn(101), Lsn(1)) > epoch);
        assert_eq!(epoch.0, 107_u128 << 64);
    }

    #[test]
    fn a_raised_base_is_above_everything_before_it() {
        let before = Version::of(0, Lsn(1 << 40), Lsn(u64::MAX));
        assert!(Version::epoch(1 << 40, Lsn(1)) > before);
    }
}
