//! Which table a relation's rows belong to: partitions are published as themselves, and so are tables
//! that inherit. Pure.
//!
//! The stream may be behind the source: a relation of which it tells may have been detached or dropped
//! since. It is still known, then, as a leaf of its table, and its changes count up to a position by
//! which it was seen to be gone. A new one needs no bound: what is in it from before it was attached
//! is copied (its changes before, if they come at all, are of commits below that copy's epoch).

use std::collections::{BTreeSet, HashMap};

use millrace_terms::Lsn;

use super::config::StreamTable;
use crate::postgres::tree::{Ancestor, Ancestors};

/// The leaves of all tables of a stream.
#[derive(Debug)]
pub(super) struct Leaves {
    /// By the OID of the leaf.
    known: HashMap<u32, Leaf>,
    /// Indexes of tables by their OIDs, with whether tables that inherit belong to them.
    tables: HashMap<u32, (usize, bool)>,
}

/// Where the rows of a leaf belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Index of the table.
    pub table: usize,
    /// From this commit on it is not a part of the table.
    pub until: Option<Lsn>,
}

impl Leaves {
    pub(super) fn new(tables: &[StreamTable]) -> Self {
        let leaves = tables.iter().enumerate().flat_map(|(table, of)| {
            of.leaves.iter().map(move |(oid, until)| (*oid, Leaf { table, until: *until }))
        });
        Self {
            known: leaves.collect(),
            tables: tables
                .iter()
                .enumerate()
                .map(|(at, of)| (of.plan.oid, (at, of.plan.merges_heirs)))
                .collect(),
        }
    }

    /// Takes note of what a relation is a part of. Returns where its rows belong, if to a table of ours.
    pub(super) fn settle(&mut self, relation: u32, ancestors: &Ancestors) -> Option<Leaf> {
        let part_of = |(oid, ancestor): (&u32, &Ancestor)| {
            self.tables.get(oid).filter(|(_, merges)| *merges || !ancestor.inherited).map(|(table, _)| *table)
        };
        let leaf = match (ancestors.tables.iter().find_map(part_of), self.known.get(&relation)) {
            (Some(table), _) => Leaf { table, until: None },
            (None, Some(before)) => Leaf { until: before.until.or(Some(ancestors.seen)), ..*before },
            (None, None) => return None,
        };
        self.known.insert(relation, leaf);
        Some(leaf)
    }

    /// Whether a TRUNCATE of these relations, of this commit, empties a table. The server tells of the
    /// leaves, never of a partitioned table itself. If a leaf is taken into account that was attached
    /// later, or left out of account that was detached before, the answer is no: it is no in doubt.
    pub(super) fn is_whole(&self, table: usize, truncated: &BTreeSet<u32>, commit: Lsn) -> bool {
        let counts = |leaf: &Leaf| leaf.table == table && leaf.until.is_none_or(|until| commit < until);
        self.known.iter().all(|(oid, leaf)| !counts(leaf) || truncated.contains(oid))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::schema::OnColumnDropped;
    use crate::stream::schema::tests::rules;
    use crate::table::TablePlan;
    use crate::table::fixtures::plan_of;

    const ROOT: u32 = 10;
    const PARENT: u32 = 20;

    fn leaves() -> Leaves {
        let table = |id, oid, merges_heirs, leaves: &[u32]| StreamTable {
            id,
            plan: Arc::new(TablePlan { oid, merges_heirs, ..(*plan_of(Vec::new())).clone() }),
            rules: Arc::new(rules(OnColumnDropped::Keep)),
            floor: 0,
            append: None,
            leaves: leaves.iter().map(|oid| (*oid, None)).collect(),
        };
        Leaves::new(&[table(1, ROOT, false, &[11, 12]), table(2, PARENT, true, &[PARENT, 21])])
    }

    fn part_of(tables: &[(u32, bool)], seen: u64) -> Ancestors {
        let ancestor = |(oid, inherited): &(u32, bool)| {
            (*oid, Ancestor { inherited: *inherited, own_columns: Vec::new() })
        };
        Ancestors { tables: tables.iter().map(ancestor).collect(), seen: Lsn(seen) }
    }

    #[test]
    fn rows_belong_to_the_table_that_their_relation_is_or_was_a_part_of() {
        let mut leaves = leaves();
        let of = |table, until: Option<u64>| Some(Leaf { table, until: until.map(Lsn) });
        assert_eq!(leaves.settle(99, &part_of(&[(98, false)], 5)), None, "another table's partition");
        assert_eq!(leaves.settle(13, &part_of(&[(9, false), (ROOT, false)], 5)), of(0, None));
        assert_eq!(leaves.settle(14, &part_of(&[(ROOT, true)], 5)), None, "it only inherits");
        assert_eq!(leaves.settle(22, &part_of(&[(PARENT, true)], 5)), of(1, None));
        // Gone, as it was seen first; and back.
        assert_eq!(leaves.settle(11, &part_of(&[], 6)), of(0, Some(6)));
        assert_eq!(leaves.settle(11, &part_of(&[], 7)), of(0, Some(6)));
        assert_eq!(leaves.settle(11, &part_of(&[(ROOT, false)], 8)), of(0, None));
    }

    #[test]
    fn a_truncate_is_of_a_table_only_with_everything_in_it() {
        let mut leaves = leaves();
        let whole = |leaves: &Leaves, table, truncated: &[u32]| {
            leaves.is_whole(table, &truncated.iter().copied().collect(), Lsn(7))
        };
        assert!(whole(&leaves, 0, &[11, 12]));
        assert!(!whole(&leaves, 0, &[11]));
        assert!(whole(&leaves, 1, &[PARENT, 21]));
        assert!(!whole(&leaves, 1, &[PARENT]), "TRUNCATE ONLY");
        leaves.settle(21, &part_of(&[], 7));
        assert!(whole(&leaves, 1, &[PARENT]), "nothing inherits from it any more");
        leaves.settle(12, &part_of(&[], 8));
        assert!(!whole(&leaves, 0, &[11]), "it was detached later");
    }
}
