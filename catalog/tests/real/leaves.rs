use millrace_catalog::leaves::{KnownLeaf, Leaf, LeafChanges};
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::state::TableState;
use millrace_terms::{Code, Lsn, TableName};

use crate::database::{catalog, mirror};

fn leaf(oid: u32, attachment: &str) -> Leaf {
    Leaf { oid, name: TableName::new("public", format!("leaf{oid}")), attachment: attachment.into() }
}

fn shown(known: &[KnownLeaf]) -> Vec<(u32, Option<u32>, Option<Lsn>)> {
    known.iter().map(|known| (known.leaf.oid, known.copy_no, known.removed_at)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_a_part_of_a_table_later_is_covered_by_a_copy_of_its_own() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    catalog.mark_prepared("shop").await.unwrap();
    let first = catalog.claim_copies("shop", 4).await.unwrap().remove(0);
    let id = first.table_id;
    let both = [leaf(1, "5/"), leaf(2, "5/")];
    catalog.cover_leaves(id, 1, &both).await.unwrap();
    catalog.cover_leaves(id, 1, &both).await.unwrap();
    assert_eq!(catalog.covered_leaves(id, 1).await.unwrap(), [1, 2]);

    // Found while it is copied: it waits.
    let known = catalog.stream_leaves("shop", 0).await.unwrap();
    let changes = LeafChanges {
        waiting: vec![leaf(3, "6/")],
        renamed: vec![Leaf { name: TableName::new("public", "other"), ..leaf(2, "5/") }],
        removed: vec![1],
        seen: Lsn(70),
    };
    assert!(catalog.change_leaves(id, &known, &changes).await.unwrap());
    assert!(!catalog.change_leaves(id, &known, &changes).await.unwrap(), "decided by what is no more");
    assert!(!catalog.begin_partial_copy(id).await.unwrap());
    catalog.record_epoch(id, 1, Lsn(50)).await.unwrap();
    catalog.plan_partitions(id, 1, &[]).await.unwrap();
    catalog.finish_copy(id, 1).await.unwrap();

    assert!(catalog.begin_partial_copy(id).await.unwrap());
    let copy = catalog.claim_copies("shop", 4).await.unwrap().remove(0);
    assert_eq!((copy.table_id, copy.copy_no), (id, 2));
    assert!(catalog.copy_state(id, 2).await.unwrap().partial);
    catalog.cover_leaves(id, 2, &[leaf(2, "5/"), leaf(3, "6/"), leaf(4, "8/")]).await.unwrap();
    assert_eq!(catalog.covered_leaves(id, 2).await.unwrap(), [3], "what was not known is found next");
    let known = catalog.stream_leaves("shop", 0).await.unwrap();
    assert_eq!(shown(&known), [(1, Some(1), Some(Lsn(70))), (2, Some(1), None), (3, Some(2), None)]);
    assert_eq!(known[1].leaf.name.name, "other");

    // A resync that comes in between is of the whole table.
    catalog.set_table_state(id, TableState::Resyncing).await.unwrap();
    assert_eq!(catalog.cover_leaves(id, 2, &both).await.unwrap_err().code(), Code::LeaseLost);
    catalog.claim_copies("shop", 4).await.unwrap();
    assert!(!catalog.copy_state(id, 3).await.unwrap().partial);
    catalog.cover_leaves(id, 3, &[leaf(2, "5/"), leaf(3, "6/")]).await.unwrap();
    assert_eq!(catalog.covered_leaves(id, 3).await.unwrap(), [2, 3]);
    let known = catalog.stream_leaves("shop", 0).await.unwrap();
    assert_eq!(shown(&known)[0], (1, Some(1), Some(Lsn(70))), "the stream may still come to its changes");
}
