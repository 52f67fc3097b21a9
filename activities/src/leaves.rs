//! Compares the relations that hold the rows of tables with those that were known: a partition that
//! was attached is copied, and of one that is gone the mirror's setting says what happens.
//!
//! The running stream does it, whenever it is told of a partition and every few seconds. Only a table
//! that streams is compared, and that may have partitions: the end of a copy is followed by the next look.

use std::collections::BTreeMap;

use millrace_catalog::leaves::{KnownLeaf, Leaf, LeafChanges};
use millrace_catalog::mirrors::Mirror;
use millrace_catalog::spec::OnPartitionRemoved;
use millrace_catalog::state::TableState;
use millrace_catalog::tables::Table;
use millrace_replication::postgres::Session;
use millrace_replication::postgres::tree::{self, Difference, Tree};
use millrace_terms::{Code, Error, EventCode, Result};

use crate::environment::Environment;
use crate::heirs;

/// Most partitions that one event names.
const NAMED_MAX: usize = 5;

/// Compares the tables of a stream. Gives whether the mirror has something to do now.
///
/// # Errors
/// Those of the source and of the catalog.
pub(crate) async fn compare(
    environment: &Environment,
    mirror: &Mirror,
    stream: u32,
    session: &Session,
) -> Result<bool> {
    let candidates = candidates(environment, mirror, stream).await?;
    if candidates.is_empty() {
        // The rule: nobody need ask the source.
        return Ok(false);
    }
    let oids = |heirs| {
        let asked = candidates.iter().filter(move |(table, _)| heirs::are_merged(mirror, table) == heirs);
        asked.map(|(table, _)| table.oid).collect::<Vec<u32>>()
    };
    let mut now = tree::of(session, &oids(false), false).await?;
    now.extend(tree::of(session, &oids(true), true).await?);
    let mut is_due = false;
    for (table, known) in candidates {
        // A table that is gone is told of by its own changes.
        let Some(now) = now.remove(&table.oid) else { continue };
        is_due |= follow(environment, mirror, table, &known, &now).await?;
    }
    Ok(is_due)
}

/// The tables of a stream that may have other leaves now, with those that were known.
async fn candidates<'a>(
    environment: &Environment,
    mirror: &'a Mirror,
    stream: u32,
) -> Result<Vec<(&'a Table, Vec<KnownLeaf>)>> {
    // What was never copied is not to be; of a table whose rows must arrive exactly once no part is
    // copied by itself.
    let is_appended = |table: &Table| {
        mirror.spec.tables.iter().any(|spec| spec.append_only && spec.source == table.source.to_string())
    };
    let mut known: BTreeMap<i64, Vec<KnownLeaf>> = BTreeMap::new();
    for leaf in environment.catalog.stream_leaves(mirror.name(), stream).await? {
        known.entry(leaf.table_id).or_default().push(leaf);
    }
    let is_copied =
        |table: &&Table| table.stream == stream && table.copy_no > 0 && table.state == TableState::Streaming;
    let tables = mirror.tables.iter().filter(is_copied);
    let with_known = tables.map(|table| (table, known.remove(&table.id).unwrap_or_default()));
    let may_change =
        |table: &Table, known: &[KnownLeaf]| heirs::are_merged(mirror, table) || may_change(table.oid, known);
    Ok(with_known.filter(|(table, known)| may_change(table, known) && !is_appended(table)).collect())
}

/// Whether a table may have other leaves than are known of it, if it has no heirs. One that is its own and only
/// leaf has no partitions, and never will: a table is made with or without them.
fn may_change(table: u32, known: &[KnownLeaf]) -> bool {
    !matches!(known, [only] if only.leaf.oid == table && only.removed_at.is_none())
}

async fn follow(
    environment: &Environment,
    mirror: &Mirror,
    table: &Table,
    known: &[KnownLeaf],
    now: &Tree,
) -> Result<bool> {
    let catalog = &environment.catalog;
    let difference = Difference::between(&present(known), &now.leaves);
    if difference.is_empty() {
        // One may have been found while the table was being copied.
        return catalog.begin_partial_copy(table.id).await;
    }
    let mut is_due = false;
    let gone: Vec<&tree::Leaf> = difference.removed.iter().chain(&difference.again).collect();
    if !gone.is_empty() {
        // Asked for before the change is stored, so that no crash between the two forgets it.
        is_due = removed(environment, mirror, table, &gone).await?;
    }
    let changes = LeafChanges {
        waiting: difference.added.iter().chain(&difference.again).map(stored).collect(),
        renamed: difference.renamed.iter().map(stored).collect(),
        removed: difference.removed.iter().map(|leaf| leaf.oid).collect(),
        seen: now.seen,
    };
    if !catalog.change_leaves(table.id, known, &changes).await? {
        // Somebody else compared at the same time.
        return Ok(is_due);
    }
    if catalog.begin_partial_copy(table.id).await? {
        let names = names(changes.waiting.iter().map(|leaf| leaf.name.to_string()));
        let text = format!("new in {}, and copied: {names}", table.source);
        environment.tell(mirror.name(), &table.source, EventCode::PartitionsAdded, &text).await?;
        is_due = true;
    }
    Ok(is_due)
}

/// Partitions are no part of the table any more. Gives whether the mirror has something to do.
async fn removed(
    environment: &Environment,
    mirror: &Mirror,
    table: &Table,
    gone: &[&tree::Leaf],
) -> Result<bool> {
    let names = names(gone.iter().map(|leaf| leaf.name.to_string()));
    let what = format!("detached or dropped from {}: {names}", table.source);
    match mirror.spec.settings.on_partition_removed {
        OnPartitionRemoved::Keep => {
            environment
                .tell(
                    mirror.name(),
                    &table.source,
                    EventCode::PartitionsRemoved,
                    &format!("{what}; the rows stay"),
                )
                .await?;
            Ok(false)
        }
        OnPartitionRemoved::Resync => environment.catalog.ask_resync(table.id, None, &resynced(what)).await,
    }
}

/// Why a table is copied again that has lost rows which the log does not tell of.
pub(crate) fn resynced(what: impl Into<String>) -> Error {
    Error::new(Code::TableSchemaChanged, what)
        .with_remedy("Nothing: the table is copied again by itself. Where the rows are to stay, set `on_partition_removed: keep`.")
}

/// The leaves that are part of a table, as far as it is known.
fn present(known: &[KnownLeaf]) -> Vec<tree::Leaf> {
    let present = known.iter().filter(|known| known.removed_at.is_none());
    let leaf = |Leaf { oid, name, attachment }: &Leaf| tree::Leaf {
        oid: *oid,
        name: name.clone(),
        attachment: attachment.clone(),
    };
    present.map(|known| leaf(&known.leaf)).collect()
}

/// A leaf as the catalog has it.
pub(crate) fn stored(leaf: &tree::Leaf) -> Leaf {
    Leaf { oid: leaf.oid, name: leaf.name.clone(), attachment: leaf.attachment.clone() }
}

fn names(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = names.take(NAMED_MAX).collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use millrace_terms::{Lsn, TableName};

    use super::*;

    #[test]
    fn only_a_table_without_partitions_keeps_its_leaves() {
        let leaf = |oid, removed_at| KnownLeaf {
            table_id: 1,
            leaf: Leaf { oid, name: TableName::new("public", "t"), attachment: String::new() },
            copy_no: Some(1),
            removed_at,
        };
        assert!(!may_change(7, &[leaf(7, None)]));
        assert!(may_change(7, &[]), "a partitioned table may have no partition yet");
        assert!(may_change(7, &[leaf(8, None)]));
        assert!(may_change(7, &[leaf(7, None), leaf(8, None)]), "with an heir");
        assert!(may_change(7, &[leaf(7, Some(Lsn(1)))]));
    }

    #[test]
    fn an_event_names_a_few_partitions_and_counts_the_rest() {
        let of = |count: usize| names((0..count).map(|n| format!("p{n}")).collect::<Vec<_>>().into_iter());
        assert_eq!(of(2), "p0, p1");
        assert_eq!(of(7), "p0, p1, p2, p3, p4 and 2 more");
    }
}
