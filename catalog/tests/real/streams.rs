use std::time::Duration;

use millrace_catalog::peers::CreateOptions;
use millrace_catalog::streams::{Progress, SlotFacts};
use millrace_terms::{Code, Lsn};

use crate::database::{catalog, mirror};

const TTL: Duration = Duration::from_secs(10);

fn at(position: u64) -> Progress {
    Progress { position: Lsn(position), ..Default::default() }
}

#[tokio::test]
async fn writes_of_a_replaced_attempt_are_refused() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let facts = SlotFacts { system_id: "7".into(), timeline: 1, position: Lsn(100) };
    catalog.record_slot("shop", 0, &facts).await.unwrap();
    let old = catalog.take_lease("shop", 0, TTL).await.unwrap();
    assert_eq!(old.previous, Duration::ZERO);
    catalog.advance_position("shop", 0, old.number, &at(200)).await.unwrap();
    let new = catalog.take_lease("shop", 0, TTL).await.unwrap();
    assert_eq!(new.number, old.number + 1);
    assert!(new.previous > Duration::ZERO && new.previous <= TTL, "{new:?}");
    for refused in [
        catalog.advance_position("shop", 0, old.number, &at(300)).await.map(drop),
        catalog.renew_lease("shop", 0, old.number, TTL).await,
        catalog.raise_written_below("shop", 0, old.number, Lsn(1 << 40)).await,
        catalog.release_lease("shop", 0, old.number).await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::LeaseLost);
    }
    catalog.advance_position("shop", 0, new.number, &at(250)).await.unwrap();
    catalog.advance_position("shop", 0, new.number, &at(10)).await.unwrap();
    assert_eq!(catalog.get_stream("shop", 0).await.unwrap().position, Some(Lsn(250)), "it never goes back");
    catalog.release_lease("shop", 0, new.number).await.unwrap();
    let next = catalog.take_lease("shop", 0, TTL).await.unwrap();
    assert!(next.previous > Duration::ZERO, "the first holder never gave its lease back: {next:?}");
}

#[tokio::test]
async fn a_holder_that_gave_its_lease_back_is_not_waited_for() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap();
    catalog.release_lease("shop", 0, lease.number).await.unwrap();
    assert_eq!(catalog.take_lease("shop", 0, TTL).await.unwrap().previous, Duration::ZERO);
}

#[tokio::test]
async fn versions_and_positions_use_all_their_bits() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    let high = Lsn(u64::MAX - 1);
    catalog.raise_written_below("shop", 0, lease, high).await.unwrap();
    assert_eq!(catalog.get_stream("shop", 0).await.unwrap().written_below, high);
    let table = catalog.list_tables("shop").await.unwrap()[0].id;
    catalog.raise_streamed_floor(table, lease, u128::MAX).await.unwrap();
    catalog.raise_streamed_floor(table, lease, 5).await.unwrap();
    assert_eq!(catalog.get_table(table).await.unwrap().floor, u128::MAX, "a floor never falls");
}

#[tokio::test]
async fn a_physical_delete_is_due_once_more_when_it_is_old_enough() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 2), &CreateOptions::default()).await.unwrap();
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    let table = catalog.list_tables("shop").await.unwrap()[0].id;
    let lost = catalog.raise_streamed_floor(table, lease - 1, 7).await.unwrap_err();
    assert_eq!(lost.code(), Code::LeaseLost, "a replaced attempt raises nothing");
    assert!(catalog.due_purges(Duration::ZERO).await.unwrap().is_empty());

    catalog.raise_streamed_floor(table, lease, 7).await.unwrap();
    assert!(catalog.due_purges(Duration::from_secs(3_600)).await.unwrap().is_empty(), "not yet");
    let due = catalog.due_purges(Duration::ZERO).await.unwrap();
    assert_eq!((due[0].table_id, due[0].below, due.len()), (table, 7, 1));
    catalog.raise_streamed_floor(table, lease, 9).await.unwrap();
    catalog.finish_purge(&due[0]).await.unwrap();
    let due = catalog.due_purges(Duration::ZERO).await.unwrap();
    assert_eq!((due[0].below, due.len()), (9, 1), "one that came meanwhile stays due");
    catalog.finish_purge(&due[0]).await.unwrap();
    assert!(catalog.due_purges(Duration::ZERO).await.unwrap().is_empty());
}
