use std::time::Duration;

use millrace_catalog::Catalog;
use millrace_catalog::edits::{MirrorEdit, TableEdit};
use millrace_catalog::mirrors::{Mirror, NewStream};
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::state::TableState;
use millrace_catalog::tables::NewPlan;
use millrace_terms::Code;

use crate::database::{catalog, mirror};

const TTL: Duration = Duration::from_secs(30);

/// From the stored tables to those of this range.
async fn edit(stored: &Mirror, tables: std::ops::Range<usize>) -> MirrorEdit {
    let all = mirror("shop", 9);
    let mut after = stored.spec.clone();
    after.tables = all.spec.tables[tables.clone()].to_vec();
    let is_there = |name: &str| stored.tables.iter().any(|table| table.destination == name);
    MirrorEdit {
        before: stored.spec.clone(),
        added: all.tables[tables].iter().filter(|table| !is_there(&table.destination)).cloned().collect(),
        removed: stored
            .tables
            .iter()
            .filter(|table| !after.tables.iter().any(|spec| spec.source == table.source.to_string()))
            .map(|table| table.id)
            .collect(),
        after,
        etag: String::new(),
        drop_destination: false,
        restart: false,
    }
}

async fn two_tables() -> (Catalog, Mirror) {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 2), &CreateOptions::default()).await.unwrap();
    let stored = catalog.get_mirror("shop").await.unwrap();
    (catalog, stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_to_join_is_copied_when_it_has_joined() {
    let (catalog, stored) = two_tables().await;
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    assert_eq!(catalog.edit_mirror(&edit(&stored, 0..3).await).await.unwrap(), [], "nobody is fenced yet");
    assert_eq!(catalog.claim_copies("shop", 9).await.unwrap().len(), 2);
    let joining = catalog.list_edits("shop").await.unwrap();
    assert_eq!((joining.len(), joining[0].edit), (1, Some(TableEdit::Join)));
    assert_eq!(catalog.list_edited_mirrors().await.unwrap(), ["shop"]);

    let plan = NewPlan { oid: 7, plan: serde_json::json!({}), floor: 5, rows_estimated: 1, bytes_total: 1 };
    assert!(catalog.join_table(joining[0].id, &plan).await.unwrap());
    assert!(!catalog.join_table(joining[0].id, &plan).await.unwrap(), "the second time it is a member");
    let stale = catalog.renew_lease("shop", 0, lease, TTL).await.unwrap_err();
    assert_eq!(stale.code(), Code::LeaseLost, "the attempt that runs does not know the table");
    assert_eq!(catalog.claim_copies("shop", 9).await.unwrap().len(), 3);
    let table = catalog.get_table(joining[0].id).await.unwrap();
    assert_eq!((table.state, table.oid, table.floor), (TableState::Copying, 7, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_leaves_at_once_and_may_be_added_again_beside_its_former_self() {
    let (catalog, stored) = two_tables().await;
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    let copies = catalog.claim_copies("shop", 9).await.unwrap();
    let fences = catalog.edit_mirror(&edit(&stored, 0..1).await).await.unwrap();
    assert_eq!((fences.len(), fences[0].lease), (1, lease + 1));
    let over = catalog.copy_state(copies[1].table_id, copies[1].copy_no).await.unwrap_err();
    assert_eq!(over.code(), Code::LeaseLost, "its copy is over");
    let left = catalog.get_mirror("shop").await.unwrap();
    assert_eq!((left.tables.len(), left.spec.tables.len()), (1, 1));
    assert_ne!(left.etag, stored.etag);

    catalog.edit_mirror(&edit(&left, 0..2).await).await.unwrap();
    let edits = catalog.list_edits("shop").await.unwrap();
    assert_eq!(
        edits.iter().map(|table| table.edit).collect::<Vec<_>>(),
        [Some(TableEdit::Leave), Some(TableEdit::Join)]
    );
    catalog.finish_leaving(edits[0].id).await.unwrap();
    catalog.finish_leaving(edits[1].id).await.unwrap();
    assert_eq!(catalog.list_edits("shop").await.unwrap().len(), 1, "only what left has left");
    let former = catalog.list_former_tables("shop").await.unwrap();
    assert_eq!(
        former.iter().map(|table| (table.destination.as_str(), table.stream)).collect::<Vec<_>>(),
        [("t1", 0)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_streams_of_tables_that_pause_or_leave_take_notice() {
    let catalog = catalog().await;
    let mut new = mirror("shop", 2);
    new.streams = (0..2).map(|n| NewStream { slot: format!("s{n}"), publication: format!("p{n}") }).collect();
    new.tables[1].stream = 1;
    catalog.create_mirror(&new, &CreateOptions::default()).await.unwrap();
    for n in 0..2 {
        catalog.take_lease("shop", n, TTL).await.unwrap();
    }
    let stored = catalog.get_mirror("shop").await.unwrap();
    let paused = catalog.pause_table(&stored.tables[1]).await.unwrap();
    assert_eq!(paused.iter().map(|fence| (fence.stream, fence.lease)).collect::<Vec<_>>(), [(1, 2)]);
    let left = catalog.edit_mirror(&edit(&stored, 1..2).await).await.unwrap();
    assert_eq!(left.iter().map(|fence| (fence.stream, fence.lease)).collect::<Vec<_>>(), [(0, 2)]);
    let stored = catalog.get_mirror("shop").await.unwrap();
    let settings = MirrorEdit { restart: true, ..edit(&stored, 1..2).await };
    assert_eq!(catalog.edit_mirror(&settings).await.unwrap().len(), 2, "settings are read by every stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_of_the_same_mirror_one_is_refused() {
    let (catalog, stored) = two_tables().await;
    let (one, two) = (edit(&stored, 0..3).await, edit(&stored, 0..1).await);
    let (one, two) = tokio::join!(catalog.edit_mirror(&one), catalog.edit_mirror(&two));
    let refused = match (one, two) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.code(), Code::EditConflict);
    let now = catalog.get_mirror("shop").await.unwrap();
    let stale = MirrorEdit { etag: stored.etag, ..edit(&now, 0..4).await };
    assert_eq!(catalog.edit_mirror(&stale).await.unwrap_err().code(), Code::EditConflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_table_is_fenced_once_and_nothing_of_it_is_begun() {
    let (catalog, stored) = two_tables().await;
    catalog.mark_prepared("shop").await.unwrap();
    let etag = catalog.get_mirror("shop").await.unwrap().etag;
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    catalog.claim_copies("shop", 9).await.unwrap();
    let fences = catalog.pause_table(&stored.tables[0]).await.unwrap();
    assert_eq!(fences[0].lease, lease + 1);
    assert_eq!(catalog.pause_table(&stored.tables[0]).await.unwrap(), [], "it is paused already");
    assert_eq!(catalog.claim_copies("shop", 9).await.unwrap().len(), 1);
    catalog.mark_prepared("shop").await.unwrap();
    assert_eq!(catalog.get_mirror("shop").await.unwrap().etag, etag, "what is said again is no change");
}
