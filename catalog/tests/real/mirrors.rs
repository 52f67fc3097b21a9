use millrace_catalog::Catalog;
use millrace_catalog::batches::NewBatch;
use millrace_catalog::events::{EventFilter, NewEvent, Severity};
use millrace_catalog::mirrors::MirrorFilter;
use millrace_catalog::page::PageRequest;
use millrace_catalog::peers::{CreateOptions, Created};
use millrace_catalog::state::{Desired, MirrorState, TableState};
use millrace_terms::{Code, Error, EventCode};

use crate::database::{catalog, empty, keys, mirror, raw};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_at_once_makes_one_mirror() {
    let catalog = catalog().await;
    let options = CreateOptions { request_id: "r1".into(), ..Default::default() };
    let new = mirror("shop", 3);
    let (one, two) =
        tokio::join!(catalog.create_mirror(&new, &options), catalog.create_mirror(&new, &options));
    let created = [one.unwrap(), two.unwrap()].into_iter().filter(|c| matches!(c, Created::New(_))).count();
    assert_eq!(created, 1);
    let stored = catalog.get_mirror("shop").await.unwrap();
    assert_eq!((stored.tables.len(), stored.streams.len(), stored.state), (3, 1, MirrorState::Setup));
    assert_eq!(stored.spec, new.spec);
    let refused = catalog.create_mirror(&mirror("shop", 4), &CreateOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::MirrorExists);
    let mut other = new.clone();
    other.spec.settings.flush.max_rows += 1;
    let refused = catalog.create_mirror(&other, &options).await.unwrap_err();
    assert_eq!(refused.code(), Code::MirrorExists, "the same request asks for something else");
    assert!(refused.message().contains("max_rows"), "{refused}");
    assert_eq!(catalog.list_unstarted().await.unwrap(), ["shop"]);
    catalog.mark_started("shop").await.unwrap();
    assert!(catalog.list_unstarted().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mirrors_never_write_into_one_table() {
    let catalog = catalog().await;
    let (eu, us) = (mirror("eu", 2), mirror("us", 2));
    let options = CreateOptions::default();
    let (one, two) = tokio::join!(catalog.create_mirror(&eu, &options), catalog.create_mirror(&us, &options));
    let refused = match (one, two) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.code(), Code::DestinationTableExists);
    let page = catalog.list_mirrors(&PageRequest::default(), &MirrorFilter::default()).await.unwrap();
    assert_eq!(page.items.len(), 1, "what is refused leaves nothing");
}

#[tokio::test]
async fn a_mirror_of_unknown_peers_leaves_nothing() {
    let catalog = catalog().await;
    let mut new = mirror("shop", 1);
    new.spec.source = "nobody".into();
    let refused = catalog.create_mirror(&new, &CreateOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PeerNotFound);
    assert_eq!(catalog.get_mirror("shop").await.unwrap_err().code(), Code::MirrorNotFound);
}

#[tokio::test]
async fn the_state_follows_from_the_tables_and_from_what_is_wanted() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 2), &CreateOptions::default()).await.unwrap();
    let state = async || catalog.get_mirror("shop").await.unwrap().state;
    catalog.mark_prepared("shop").await.unwrap();
    assert_eq!(state().await, MirrorState::Snapshot);
    let copies = catalog.claim_copies("shop", 10).await.unwrap();
    for copy in &copies {
        catalog.plan_partitions(copy.table_id, copy.copy_no, &[]).await.unwrap();
        catalog.record_epoch(copy.table_id, copy.copy_no, millrace_terms::Lsn(5)).await.unwrap();
        catalog.finish_copy(copy.table_id, copy.copy_no).await.unwrap();
    }
    assert_eq!(state().await, MirrorState::Running);
    let error = Error::new(Code::TableSchemaChanged, "a column is gone");
    catalog.set_table_error(copies[0].table_id, &error).await.unwrap();
    assert_eq!(state().await, MirrorState::Degraded);
    let refused = catalog.set_table_state(copies[0].table_id, TableState::Streaming).await.unwrap_err();
    assert_eq!(refused.code(), Code::MirrorState);
    catalog.set_desired("shop", Desired::Paused, "").await.unwrap();
    assert_eq!(state().await, MirrorState::Paused);
    catalog.set_desired("shop", Desired::Dropping, "").await.unwrap();
    assert_eq!(
        catalog.set_desired("shop", Desired::Running, "").await.unwrap_err().code(),
        Code::MirrorState
    );
    assert_eq!(state().await, MirrorState::Dropping);
}

#[tokio::test]
async fn events_are_listed_newest_first_and_outlive_their_mirror() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    catalog.add_event(&NewEvent::info("shop", EventCode::MirrorResumed, "created")).await.unwrap();
    let error = Error::new(Code::SlotLost, "gone").with("table", "public.t0");
    let error = NewEvent::of_error("shop", Severity::Error, &error);
    assert!(catalog.delete_mirror("shop", &[error]).await.unwrap());
    let twice = [NewEvent::info("shop", EventCode::MirrorResumed, "a second attempt writes nothing")];
    assert!(!catalog.delete_mirror("shop", &twice).await.unwrap());
    let all = EventFilter::default();
    let page = async |token: String| {
        catalog.list_events("shop", &PageRequest { size: 1, token }, &all).await.unwrap()
    };
    let first = page(String::new()).await;
    let newest = &first.items[0];
    assert_eq!(
        (newest.code.as_str(), newest.table.as_str(), newest.severity),
        ("SLOT_LOST", "public.t0", Severity::Error)
    );
    let rest = page(first.next.clone().unwrap()).await;
    assert_eq!((rest.items[0].message.as_str(), rest.next), ("created", None));
    let found = async |filter: EventFilter| {
        let events = catalog.list_events("shop", &PageRequest::default(), &filter).await.unwrap().items;
        events.into_iter().map(|event| event.message).collect::<Vec<_>>()
    };
    assert_eq!(found(EventFilter { min_severity: Some(Severity::Warning), ..all.clone() }).await, ["gone"]);
    assert_eq!(found(EventFilter { table: "public.t0".into(), ..all.clone() }).await, ["gone"]);
    assert_eq!(found(EventFilter { code: "SLOT_LOST".into(), ..all.clone() }).await, ["gone"]);
    assert_eq!(found(EventFilter { from: Some(newest.at), ..all.clone() }).await.len(), 1);
    assert_eq!(found(EventFilter { to: Some(newest.at), ..all.clone() }).await, ["created"]);
}

#[tokio::test]
async fn what_is_old_is_deleted_and_nothing_else() {
    let url = empty().await;
    millrace_catalog::migrate(&url).await.unwrap();
    let catalog = Catalog::connect(&url, keys(&millrace_catalog::SecretKeys::generate())).await.unwrap();
    for peer in [crate::database::source(), crate::database::destination()] {
        catalog.create_peer(&peer, &CreateOptions::default()).await.unwrap();
    }
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    catalog.add_event(&NewEvent::info("shop", EventCode::MirrorResumed, "old")).await.unwrap();
    catalog.add_batch("shop", 0, &NewBatch { inserts: 3, ..Default::default() }).await.unwrap();
    let sql = raw(&url).await;
    sql.batch_execute(
        "insert into events (mirror, severity, message) select 'shop', 'INFO', n::text from generate_series(1, 10000) n;
         update events set at = at - interval '31 days'; update batches set at = at - interval '8 days'",
    )
    .await
    .unwrap();
    catalog.add_event(&NewEvent::info("shop", EventCode::MirrorResumed, "new")).await.unwrap();
    catalog.add_batch("shop", 0, &NewBatch { inserts: 1, ..Default::default() }).await.unwrap();
    catalog.add_batch("shop", 0, &NewBatch { inserts: 1, ..Default::default() }).await.unwrap();
    assert_eq!(catalog.delete_expired().await.unwrap(), 10_002);
    let left: i64 = sql.query_one("select sum(inserts)::bigint from batches", &[]).await.unwrap().get(0);
    assert_eq!(left, 2);
    assert_eq!(
        catalog
            .list_events("shop", &PageRequest::default(), &EventFilter::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn two_hundred_mirrors_are_listed_in_three_statements() {
    let catalog = catalog().await;
    for n in 0..200 {
        let mut new = mirror(&format!("m{n:03}"), 10);
        new.tables
            .iter_mut()
            .for_each(|table| table.destination = format!("{}_{}", new.spec.name, table.destination));
        catalog.create_mirror(&new, &CreateOptions::default()).await.unwrap();
    }
    let page = catalog
        .list_mirrors(&PageRequest { size: 1_000, token: String::new() }, &MirrorFilter::default())
        .await
        .unwrap();
    assert_eq!((page.items.len(), page.next), (200, None));
    assert!(page.items.iter().all(|mirror| mirror.tables.len() == 10));
}

#[tokio::test]
async fn mirrors_are_listed_by_state_peer_and_name_over_all_pages() {
    let catalog = catalog().await;
    for n in 0..6 {
        let mut new = mirror(&format!("m{n}"), 1);
        new.tables[0].destination = format!("t{n}");
        catalog.create_mirror(&new, &CreateOptions::default()).await.unwrap();
        if n % 2 == 1 {
            catalog.set_desired(&new.spec.name, Desired::Paused, "").await.unwrap();
            catalog.mark_prepared(&new.spec.name).await.unwrap();
        }
    }
    let list = async |size: u32, filter: MirrorFilter| {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let page = catalog.list_mirrors(&PageRequest { size, token }, &filter).await.unwrap();
            assert!(page.items.len() <= size as usize);
            names.extend(page.items.into_iter().map(|mirror| mirror.spec.name));
            match page.next {
                Some(next) => token = next,
                None => return names,
            }
        }
    };
    let paused = MirrorFilter { states: vec![MirrorState::Paused], ..MirrorFilter::default() };
    for size in [1, 2, 100] {
        assert_eq!(list(size, paused.clone()).await, ["m1", "m3", "m5"], "pages of {size}");
    }
    assert_eq!(list(9, MirrorFilter { name_prefix: "m4".into(), ..MirrorFilter::default() }).await, ["m4"]);
    assert_eq!(list(9, MirrorFilter { source: "pg".into(), ..MirrorFilter::default() }).await.len(), 6);
    assert_eq!(list(9, MirrorFilter { destination: "pg".into(), ..MirrorFilter::default() }).await.len(), 0);
}
