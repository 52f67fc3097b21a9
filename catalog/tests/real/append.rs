use std::time::Duration;

use millrace_catalog::Catalog;
use millrace_catalog::append::{Append, Cut};
use millrace_catalog::partitions::{Claim, NewPartition};
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::streams::{Progress, SlotFacts};
use millrace_terms::{Code, Lsn, TableName};

use crate::database::{catalog, mirror};

const TTL: Duration = Duration::from_secs(10);

fn at(position: u64) -> Progress {
    Progress { position: Lsn(position), ..Default::default() }
}

/// A table whose one partition has the owner `me`, and a stream at 100. Gives the table and the copy.
async fn claimed(catalog: &Catalog) -> (i64, u32) {
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let facts = SlotFacts { system_id: "7".into(), timeline: 1, position: Lsn(100) };
    catalog.record_slot("shop", 0, &facts).await.unwrap();
    catalog.mark_prepared("shop").await.unwrap();
    let copy = catalog.claim_copies("shop", 4).await.unwrap().remove(0);
    catalog.record_epoch(copy.table_id, copy.copy_no, Lsn(50)).await.unwrap();
    let whole = NewPartition {
        leaf: TableName::new("public", "t0"),
        leaf_oid: 1,
        filenode: 0,
        first_block: 0,
        end_block: None,
        bytes: 8_192,
    };
    catalog.plan_partitions(copy.table_id, copy.copy_no, &[whole]).await.unwrap();
    let claim = catalog.claim_partition(copy.table_id, copy.copy_no, "me", TTL, 8).await.unwrap();
    assert!(matches!(claim, Claim::Partition(_)));
    (copy.table_id, copy.copy_no)
}

fn seen(table_id: i64, run: u32) -> Append {
    Append { table_id, run, snapshot: "10:12:11".into(), seen_below: Lsn(400), cut: None }
}

#[tokio::test]
async fn what_is_acknowledged_is_held_until_the_stream_has_gone_back() {
    let catalog = catalog().await;
    let (table, copy) = claimed(&catalog).await;
    let old = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    assert_eq!(catalog.advance_position("shop", 0, old, &at(200)).await, Ok(Lsn(200)));
    let begun = catalog.begin_append(table, copy, "me").await.unwrap();
    assert_eq!((begun.run, begun.is_repeat), (1, false));
    assert_eq!(catalog.advance_position("shop", 0, old, &at(300)).await, Ok(Lsn(200)), "it is held");
    assert_eq!(catalog.get_stream("shop", 0).await.unwrap().hold, Some(Lsn(200)));
    assert_eq!(catalog.appends("shop", 0).await.unwrap(), [], "it is not streamed");

    catalog.go_back(&seen(table, 1), Lsn(350)).await.unwrap();
    let refused = catalog.advance_position("shop", 0, old, &at(500)).await.unwrap_err();
    assert_eq!(refused.code(), Code::LeaseLost, "this attempt does not know the table");
    let stream = catalog.get_stream("shop", 0).await.unwrap();
    assert_eq!((stream.position, stream.hold), (Some(Lsn(200)), None));
    assert_eq!(catalog.appends("shop", 0).await.unwrap(), [seen(table, 1)]);
    let new = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    assert_eq!(catalog.advance_position("shop", 0, new, &at(500)).await, Ok(Lsn(500)));
}

#[tokio::test]
async fn only_the_holder_of_the_lease_cuts_and_only_the_newest_copy_goes_on() {
    let catalog = catalog().await;
    let (table, copy) = claimed(&catalog).await;
    catalog.begin_append(table, copy, "me").await.unwrap();
    catalog.go_back(&seen(table, 1), Lsn(350)).await.unwrap();
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    let cut = Cut { version: u128::MAX, taken: 3, rows: 7 };
    catalog.store_cut(table, lease, cut).await.unwrap();
    assert_eq!(catalog.appends("shop", 0).await.unwrap()[0].cut, Some(cut));

    let stranger = catalog.begin_append(table, copy, "another").await.unwrap_err();
    assert_eq!(stranger.code(), Code::LeaseLost);
    let begun = catalog.begin_append(table, copy, "me").await.unwrap();
    assert_eq!((begun.run, begun.is_repeat), (2, true));
    assert_eq!(catalog.store_cut(table, lease, cut).await.unwrap_err().code(), Code::LeaseLost);
    let older = catalog.go_back(&seen(table, 1), Lsn(350)).await.unwrap_err();
    assert_eq!(older.code(), Code::LeaseLost);
    catalog.go_back(&seen(table, 2), Lsn(360)).await.unwrap();
    assert_eq!(catalog.appends("shop", 0).await.unwrap(), [seen(table, 2)], "it is cut anew");
}

#[tokio::test]
async fn a_copy_that_is_over_holds_nothing() {
    let catalog = catalog().await;
    let (table, copy) = claimed(&catalog).await;
    catalog.begin_append(table, copy, "me").await.unwrap();
    catalog.release_holds("shop", 0).await.unwrap();
    assert_eq!(catalog.get_stream("shop", 0).await.unwrap().hold, Some(Lsn(100)), "it goes on");
    let error = millrace_terms::Error::new(Code::SourcePermission, "may not be read");
    catalog.set_table_error(table, &error).await.unwrap();
    catalog.release_holds("shop", 0).await.unwrap();
    assert_eq!(catalog.get_stream("shop", 0).await.unwrap().hold, None);
}
