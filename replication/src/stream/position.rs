//! How far a stream has got. Pure.
//!
//! The position is the end of the last transaction up to which, without a gap, every change has
//! arrived. No transaction is remembered for it: a batch knows the last transaction that was complete
//! *before the transaction of its first row*; everything up to there is not in it. So the position is
//! the least of these marks over the batches that have not arrived, or the last complete transaction
//! if there are none. It never goes back: a new batch's mark is the last complete transaction.

use std::collections::BTreeMap;

use millrace_terms::Lsn;

/// A batch, or a physical delete, that has not arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchId(u64);

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Where its commit record ends, or where the log ended while nothing was under way.
    pub lsn: Lsn,
    /// When the last transaction below was committed, in microseconds since 2000-01-01.
    pub committed_at: Option<i64>,
}

/// Keeps the position.
#[derive(Debug)]
pub(super) struct Tracker {
    complete: Mark,
    in_transaction: bool,
    /// Marks grow with the ids, so the first is the least.
    live: BTreeMap<BatchId, Mark>,
    next: u64,
}

impl Tracker {
    /// Everything up to `start` has arrived.
    pub(super) fn new(start: Lsn) -> Self {
        let complete = Mark { lsn: start, committed_at: None };
        Self { complete, in_transaction: false, live: BTreeMap::new(), next: 0 }
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.in_transaction = true;
    }

    /// It is complete: all its changes are in batches.
    pub(super) fn commit(&mut self, end: Lsn, committed_at: i64) {
        self.in_transaction = false;
        self.complete = Mark { lsn: self.complete.lsn.max(end), committed_at: Some(committed_at) };
    }

    /// The server has nothing for us up to `wal_end`: what was committed below was sent before.
    pub(super) fn idle(&mut self, wal_end: Lsn) {
        if !self.in_transaction {
            self.complete.lsn = self.complete.lsn.max(wal_end);
        }
    }

    /// Whether a transaction is under way.
    pub(super) fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// A batch gets its first row.
    pub(super) fn open(&mut self) -> BatchId {
        let id = BatchId(self.next);
        self.next += 1;
        self.live.insert(id, self.complete);
        id
    }

    /// A batch has arrived, or will never be sent.
    pub(super) fn done(&mut self, id: BatchId) {
        self.live.remove(&id);
    }

    /// The position.
    pub(super) fn position(&self) -> Mark {
        self.live.first_key_value().map_or(self.complete, |(_, mark)| *mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_of_the_log_counts_only_between_transactions() {
        let mut tracker = Tracker::new(Lsn(10));
        tracker.idle(Lsn(15));
        assert_eq!(tracker.position().lsn, Lsn(15));
        tracker.begin();
        tracker.idle(Lsn(20));
        assert_eq!(tracker.position().lsn, Lsn(15));
        let batch = tracker.open();
        tracker.commit(Lsn(30), 7);
        tracker.idle(Lsn(40));
        assert_eq!(tracker.position().lsn, Lsn(15));
        tracker.done(batch);
        assert_eq!(tracker.position(), Mark { lsn: Lsn(40), committed_at: Some(7) });
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A transaction with changes in these tables.
        Transaction(Vec<usize>),
        /// The open batch of a table is sent.
        Seal(usize),
        /// One of the batches that are under way arrives.
        Arrive(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(0_usize..3, 0..6).prop_map(Step::Transaction),
            (0_usize..3).prop_map(Step::Seal),
            any::<usize>().prop_map(Step::Arrive),
        ]
    }

    proptest! {
        /// Against a model that remembers every transaction of every batch.
        #[test]
        fn nothing_below_the_position_is_missing(steps in prop::collection::vec(step(), 1..80)) {
            let mut tracker = Tracker::new(Lsn(0));
            let mut open: [Option<(BatchId, Vec<u64>)>; 3] = Default::default();
            let mut sent: Vec<(BatchId, Vec<u64>)> = Vec::new();
            let (mut transactions, mut last) = (0_u64, Lsn(0));
            for step in steps {
                match step {
                    Step::Transaction(tables) => {
                        transactions += 1;
                        tracker.begin();
                        for table in tables {
                            let batch = open[table].get_or_insert_with(|| (tracker.open(), Vec::new()));
                            batch.1.push(transactions);
                        }
                        tracker.commit(Lsn(transactions), 0);
                    }
                    Step::Seal(table) => sent.extend(open[table].take()),
                    Step::Arrive(which) if !sent.is_empty() => {
                        let (id, _) = sent.remove(which % sent.len());
                        tracker.done(id);
                    }
                    Step::Arrive(_) => {}
                }
                let position = tracker.position().lsn;
                let missing = open.iter().flatten().chain(&sent).flat_map(|(_, of)| of).min();
                prop_assert_eq!(position.0, missing.map_or(transactions, |first| first - 1));
                prop_assert!(position >= last);
                last = position;
            }
        }
    }
}
