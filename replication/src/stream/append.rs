//! Tables whose rows are only ever inserted, and arrive exactly once. Pure.
//!
//! Nothing tells two equal rows apart, so nothing may be inserted twice. Every batch bears a token by
//! which the destination recognises its repeat, and a repeat must then be cut at the same places:
//!
//! - A row's [`Place`] is its version and its number among the rows of that version (those of one
//!   multi-insert share a record). Both are the same in every repeat of the log.
//! - One batch of the table is under way at a time. Where it begins and how many rows it has (its
//!   [`Cut`]) is stored *before* it is sent, under the stream's lease, so that of two attempts only
//!   the newer one cuts.
//! - A new attempt leaves out the rows before the stored cut, which have all arrived, takes exactly
//!   its rows as the first batch, with its token, and cuts anew behind it.
//!
//! The copy is one transaction of one snapshot. A transaction that this snapshot sees is in the copy;
//! every other one is delivered by the stream, which begins before the snapshot (see `copy::whole`).

use millrace_terms::Lsn;

use super::snapshot::Snapshot;
use crate::pgoutput::Begin;

/// What a stream must know of an append-only table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendState {
    /// Number of the copy that the rows belong to: each begins with an empty table.
    pub run: u32,
    /// What the copy saw: `pg_current_snapshot()`.
    pub snapshot: Snapshot,
    /// Every transaction that the copy saw is of a commit below.
    pub seen_below: Lsn,
    /// The batch that was sent last, if there was one.
    pub cut: Option<Cut>,
}

/// Where a batch begins, and its number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Version of the last row before it.
    pub version: u128,
    /// Rows of that version before it.
    pub taken: u32,
    /// Rows of the batch.
    pub rows: u32,
}

/// A row: its version, and its number among those of that version, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    version: u128,
    taken: u32,
}

/// What is to be done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// It is in the destination.
    Leave,
    /// It belongs to the batch that gathers.
    Add,
    /// It is the last one of the batch that gathers.
    Last,
}

/// How far an append-only table is.
#[derive(Debug)]
pub(super) struct Append {
    run: u32,
    snapshot: Snapshot,
    seen_below: Lsn,
    /// The last row that came.
    at: Place,
    /// The last row before the batch that gathers.
    from: Place,
    /// Rows of the batch that gathers.
    rows: u32,
    /// Rows of the batch that is repeated, until they are gathered.
    repeated: Option<u32>,
}

impl Append {
    pub(super) fn new(state: &AppendState) -> Self {
        let from = state.cut.map(|cut| Place { version: cut.version, taken: cut.taken });
        Self {
            run: state.run,
            snapshot: state.snapshot.clone(),
            seen_below: state.seen_below,
            at: Place::default(),
            from: from.unwrap_or_default(),
            rows: 0,
            repeated: state.cut.map(|cut| cut.rows),
        }
    }

    /// Whether the copy saw this transaction.
    pub(super) fn is_copied(&self, begin: &Begin) -> bool {
        begin.commit < self.seen_below && self.snapshot.sees(begin.xid)
    }

    /// Counts the next row.
    pub(super) fn take(&mut self, version: u128) -> Take {
        if version == self.at.version {
            self.at.taken += 1;
        } else {
            self.at = Place { version, taken: 1 };
        }
        if self.at <= self.from {
            return Take::Leave;
        }
        self.rows += 1;
        match self.repeated {
            Some(rows) if rows == self.rows => {
                self.repeated = None;
                Take::Last
            }
            _ => Take::Add,
        }
    }

    /// Whether the batch that gathers may not be sent yet: it is the repeat of a larger one.
    pub(super) fn is_partial(&self) -> bool {
        self.repeated.is_some()
    }

    /// Ends the batch that gathers. Returns its cut and its token, which tells it from every other one of
    /// the table.
    pub(super) fn cut(&mut self) -> (Cut, String) {
        let Place { version, taken } = self.from;
        let cut = Cut { version, taken, rows: self.rows };
        // A TRUNCATE before the stored cut may be repeated, and ends a batch of nothing.
        self.from = self.from.max(self.at);
        self.rows = 0;
        (cut, format!("{}/{version:x}/{taken}", self.run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(cut: Option<Cut>) -> AppendState {
        let snapshot = Snapshot::parse("100:105:101").unwrap();
        AppendState { run: 3, snapshot, seen_below: Lsn(50), cut }
    }

    /// Takes rows of these versions; ends the batch after each `every`. Gives the batches.
    fn batches(append: &mut Append, versions: &[u128], every: u32) -> Vec<(Cut, String, Vec<usize>)> {
        let (mut all, mut rows) = (Vec::new(), Vec::new());
        for (row, version) in versions.iter().enumerate() {
            let take = append.take(*version);
            if take != Take::Leave {
                rows.push(row);
            }
            if take == Take::Last || !append.is_partial() && append.rows == every {
                let (cut, token) = append.cut();
                all.push((cut, token, std::mem::take(&mut rows)));
            }
        }
        all
    }

    #[test]
    fn a_repeat_from_any_batch_is_cut_at_the_same_place() {
        let versions = [10, 11, 11, 11, 11, 12, 20, 21, 21, 30];
        let first = batches(&mut Append::new(&state(None)), &versions, 3);
        assert_eq!(first.len(), 3);
        for (nth, (cut, token, rows)) in first.iter().enumerate() {
            // The log is repeated from its beginning, or from any row that is left out anyway.
            for start in 0..=rows[0].min(1) {
                let repeated = batches(&mut Append::new(&state(Some(*cut))), &versions[start..], 2);
                let (again, same_token, same_rows) = &repeated[0];
                assert_eq!((again, same_token), (cut, token));
                let same_rows: Vec<usize> = same_rows.iter().map(|row| row + start).collect();
                assert_eq!(&same_rows, rows, "batch {nth} from {start}");
                if let Some((_, _, next)) = repeated.get(1) {
                    assert_eq!(
                        next[0] + start,
                        rows[rows.len() - 1] + 1,
                        "no row between two batches is lost"
                    );
                }
            }
        }
    }

    #[test]
    fn transactions_of_the_copy_are_left_out() {
        let append = Append::new(&state(None));
        let copied = |xid, commit| append.is_copied(&Begin { commit: Lsn(commit), time: 0, xid });
        assert!(copied(99, 40) && copied(104, 49));
        assert!(!copied(101, 40), "it was open");
        assert!(!copied(105, 60));
        // Long after, a transaction whose id is the same modulo 2^32.
        assert!(!copied(99, 50));
    }
}
