use std::collections::BTreeSet;
use std::time::Duration;

use millrace_catalog::Catalog;
use millrace_catalog::copies::Copy;
use millrace_catalog::events::EventFilter;
use millrace_catalog::page::PageRequest;
use millrace_catalog::partitions::{Claim, NewPartition, Partition};
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::state::TableState;
use millrace_terms::{Code, Error, Lsn, TableName};

use crate::database::{catalog, mirror};

const TTL: Duration = Duration::from_secs(10);

fn plan(leaf_oid: u32, filenode: u32, blocks: u64) -> Vec<NewPartition> {
    (0..blocks)
        .map(|first_block| NewPartition {
            leaf: TableName::new("public", "t0"),
            leaf_oid,
            filenode,
            first_block,
            end_block: (first_block + 1 < blocks).then_some(first_block + 1),
            bytes: 8_192,
        })
        .collect()
}

async fn planned(catalog: &Catalog, blocks: u64) -> Copy {
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    catalog.mark_prepared("shop").await.unwrap();
    let copy = catalog.claim_copies("shop", 4).await.unwrap().remove(0);
    catalog.record_epoch(copy.table_id, copy.copy_no, Lsn(50)).await.unwrap();
    catalog.plan_partitions(copy.table_id, copy.copy_no, &plan(1, 1, blocks)).await.unwrap();
    copy
}

async fn claim(catalog: &Catalog, copy: &Copy, owner: &str, ttl: Duration) -> Claim {
    catalog.claim_partition(copy.table_id, copy.copy_no, owner, ttl, 8).await.unwrap()
}

async fn take(catalog: &Catalog, copy: &Copy, owner: &str, ttl: Duration) -> Partition {
    match claim(catalog, copy, owner, ttl).await {
        Claim::Partition(partition) => partition,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copiers_share_the_partitions_without_overlap() {
    let catalog = catalog().await;
    let copy = planned(&catalog, 40).await;
    let work = async |owner: &str| {
        let mut mine = Vec::new();
        loop {
            match claim(&catalog, &copy, owner, TTL).await {
                Claim::Partition(partition) => {
                    catalog.finish_partition(&partition, 10, 100, Lsn(60)).await.unwrap();
                    mine.push(partition.no);
                }
                Claim::Wait => tokio::task::yield_now().await,
                Claim::Done => return mine,
            }
        }
    };
    let (one, two, three) = tokio::join!(work("a"), work("b"), work("c"));
    let all: Vec<u32> = [one, two, three].concat();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (40, 40));
    let state = catalog.copy_state(copy.table_id, copy.copy_no).await.unwrap();
    assert!(state.all_read());
    assert_eq!((state.progress.rows, state.read_end), (400, Some(Lsn(60))));
}

#[tokio::test]
async fn a_lease_that_ran_out_is_given_to_another_and_its_holder_is_refused() {
    let catalog = catalog().await;
    let copy = planned(&catalog, 1).await;
    let lost = take(&catalog, &copy, "dead", Duration::ZERO).await;
    let again = take(&catalog, &copy, "alive", TTL).await;
    assert_eq!(again.no, lost.no);
    assert_eq!(catalog.finish_partition(&lost, 1, 1, Lsn(1)).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(catalog.renew_partition(&lost, TTL, 1, 1).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(claim(&catalog, &copy, "third", TTL).await, Claim::Wait);
    catalog.release_partition(&again).await.unwrap();
    let third = take(&catalog, &copy, "third", TTL).await;
    catalog.finish_partition(&third, 1, 1, Lsn(1)).await.unwrap();
    catalog.finish_partition(&third, 1, 1, Lsn(1)).await.unwrap();
    for late in [catalog.renew_partition(&third, TTL, 0, 0).await, catalog.release_partition(&third).await] {
        assert_eq!(late.unwrap_err().code(), Code::LeaseLost, "what is done stays done");
    }
    assert_eq!(claim(&catalog, &copy, "third", TTL).await, Claim::Done);
}

#[tokio::test]
async fn a_mirror_has_only_so_many_copiers() {
    let catalog = catalog().await;
    let copy = planned(&catalog, 5).await;
    for _ in 0..2 {
        let claim = catalog.claim_partition(copy.table_id, copy.copy_no, "a", TTL, 2).await.unwrap();
        assert!(matches!(claim, Claim::Partition(_)), "{claim:?}");
    }
    assert_eq!(catalog.claim_partition(copy.table_id, copy.copy_no, "b", TTL, 2).await.unwrap(), Claim::Wait);
}

#[tokio::test]
async fn a_rewritten_leaf_is_planned_again_once() {
    let catalog = catalog().await;
    let copy = planned(&catalog, 3).await;
    let first = take(&catalog, &copy, "a", TTL).await;
    catalog.finish_partition(&first, 1, 1, Lsn(1)).await.unwrap();
    let second = take(&catalog, &copy, "a", TTL).await;
    let new = plan(1, 2, 2);
    catalog.replan_leaf(copy.table_id, copy.copy_no, 1, 1, &new).await.unwrap();
    catalog.replan_leaf(copy.table_id, copy.copy_no, 1, 1, &new).await.unwrap();
    assert_eq!(catalog.finish_partition(&second, 1, 1, Lsn(1)).await.unwrap_err().code(), Code::LeaseLost);
    let progress = catalog.copy_state(copy.table_id, copy.copy_no).await.unwrap().progress;
    assert_eq!((progress.partitions, progress.done), (2, 0), "also what was done of it is read again");
}

#[tokio::test]
async fn a_newer_copy_ends_the_older_one() {
    let catalog = catalog().await;
    let copy = planned(&catalog, 2).await;
    let partition = take(&catalog, &copy, "a", TTL).await;
    assert_eq!(
        catalog.record_epoch(copy.table_id, copy.copy_no, Lsn(99)).await.unwrap(),
        Lsn(50),
        "an epoch stays"
    );
    catalog.set_table_state(copy.table_id, TableState::Resyncing).await.unwrap();
    let next = catalog.claim_copies("shop", 4).await.unwrap().remove(0);
    assert_eq!(next.copy_no, copy.copy_no + 1);
    assert_eq!(catalog.finish_partition(&partition, 1, 1, Lsn(1)).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(
        catalog.record_epoch(copy.table_id, copy.copy_no, Lsn(1)).await.unwrap_err().code(),
        Code::LeaseLost
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_that_is_needed_is_noted_once_and_forgotten_when_it_begins() {
    let catalog = catalog().await;
    let table = planned(&catalog, 1).await.table_id;
    let reason = Error::new(Code::TableSchemaChanged, "a partition of public.t0 was truncated");
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;

    let stale = catalog.ask_resync(table, Some(lease - 1), &reason).await.unwrap_err();
    assert_eq!(stale.code(), Code::LeaseLost, "a holder that was replaced has nothing to say");
    assert!(catalog.ask_resync(table, Some(lease), &reason).await.unwrap());
    assert!(!catalog.ask_resync(table, None, &reason).await.unwrap(), "it is noted already");
    assert_eq!(catalog.wanted_resyncs("shop").await.unwrap(), [table]);
    let events =
        catalog.list_events("shop", &PageRequest::default(), &EventFilter::default()).await.unwrap().items;
    assert_eq!(events.iter().filter(|event| event.table == "public.t0").count(), 1);

    catalog.set_table_state(table, TableState::Resyncing).await.unwrap();
    assert!(catalog.wanted_resyncs("shop").await.unwrap().is_empty());
    catalog.set_table_state(table, TableState::Paused).await.unwrap();
    assert!(!catalog.ask_resync(table, None, &reason).await.unwrap(), "it is copied when it is resumed");
}
