use std::time::Duration;

use millrace_catalog::Catalog;
use millrace_catalog::peers::CreateOptions;
use millrace_catalog::verifications::{
    Counts, DifferencePlace, NewVerification, VerificationSpec, VerificationState, VerifiedTable,
};
use millrace_catalog::verified_ranges::{RangeClaim, VerifiedRange};
use millrace_terms::{Code, Lsn};
use serde_json::json;
use uuid::Uuid;

use crate::database::{catalog, mirror};

const MINUTE: Duration = Duration::from_secs(60);

fn new(request_id: &str) -> NewVerification {
    let spec = VerificationSpec { sample: 1.0, ..VerificationSpec::default() };
    NewVerification { id: Uuid::new_v4(), mirror: "shop".into(), spec, request_id: request_id.into() }
}

async fn claim(catalog: &Catalog, id: Uuid, owner: &str, ttl: Duration) -> VerifiedRange {
    match catalog.claim_range(id, owner, ttl).await.unwrap() {
        RangeClaim::Range(range) => range,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_shared_and_what_is_done_stays_done() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 2), &CreateOptions::default()).await.unwrap();
    let asked = new("a");
    let stored = catalog.create_verification(&asked).await.unwrap();
    let again = catalog.create_verification(&new("a")).await.unwrap();
    assert_eq!((again.id, stored.state), (asked.id, VerificationState::Running));
    let id = stored.id;
    let tables = catalog.list_tables("shop").await.unwrap();
    let table = VerifiedTable {
        table_id: tables[0].id,
        source: tables[0].source.to_string(),
        cut: 3,
        incomparable: vec![("j".into(), "JSON".into())],
        ..VerifiedTable::default()
    };
    let bounds = |n: i32| (n, json!({"from": [n.to_string()]}));
    catalog.plan_verified_table(id, &table, &[bounds(0), bounds(2)]).await.unwrap();
    catalog.plan_verified_table(id, &table, &[bounds(0)]).await.unwrap();

    let first = claim(&catalog, id, "one", MINUTE).await;
    let second = claim(&catalog, id, "two", Duration::ZERO).await;
    assert_eq!((first.no, second.no, &second.bounds), (0, 2, &bounds(2).1));
    // Its lease has run out, so it goes to the next who asks; the first owner has nothing to say any more.
    let taken = claim(&catalog, id, "three", MINUTE).await;
    assert_eq!(taken.no, 2);
    let late = catalog.finish_range(&second, &Counts::default(), &[]).await.unwrap_err();
    assert_eq!(late.code(), Code::LeaseLost);
    assert_eq!(catalog.claim_range(id, "four", MINUTE).await.unwrap(), RangeClaim::Wait);

    let counts = Counts { source_rows: 10, missing: 2, mended: 1, ..Counts::default() };
    let told = [(json!({"kind": "missing"}), true), (json!({"kind": "extra"}), false)];
    catalog.finish_range(&first, &counts, &told).await.unwrap();
    catalog.finish_range(&first, &counts, &told).await.unwrap();
    catalog.finish_range(&taken, &counts, &told).await.unwrap();
    assert_eq!(catalog.claim_range(id, "four", MINUTE).await.unwrap(), RangeClaim::Done);
    let seen = catalog.get_verification("shop", id).await.unwrap();
    let counts = &seen.tables[0].counts;
    assert_eq!((counts.ranges, counts.done, counts.source_rows, counts.differences()), (2, 2, 20, 4));
    let page = catalog.list_differences(id, DifferencePlace::default(), 3).await.unwrap();
    let rest = catalog.list_differences(id, page[2].place, 3).await.unwrap();
    assert_eq!((page.len(), rest.len(), rest[0].mended), (3, 1, false));

    catalog.end_verification(id, VerificationState::Completed, None).await.unwrap();
    catalog.end_verification(id, VerificationState::Cancelled, None).await.unwrap();
    let seen = catalog.get_verification("shop", id).await.unwrap();
    assert_eq!(seen.state, VerificationState::Completed);
    let missing = catalog.get_verification("shop", Uuid::new_v4()).await.unwrap_err();
    assert_eq!(missing.code(), Code::VerificationNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_skipped_leaves_no_work_and_one_that_does_not_stream_is_not_mended() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let id = catalog.create_verification(&new("")).await.unwrap().id;
    let table_id = catalog.list_tables("shop").await.unwrap()[0].id;
    let table = VerifiedTable { table_id, cut: 1, ..VerifiedTable::default() };
    catalog.plan_verified_table(id, &table, &[(0, json!({}))]).await.unwrap();
    let range = claim(&catalog, id, "one", MINUTE).await;
    catalog.skip_verified_table(id, table_id, "the table is PAUSED").await.unwrap();
    assert_eq!(catalog.renew_range(&range, MINUTE).await.unwrap_err().code(), Code::LeaseLost);
    assert_eq!(catalog.claim_range(id, "two", MINUTE).await.unwrap(), RangeClaim::Done);
    let seen = catalog.get_verification("shop", id).await.unwrap();
    assert_eq!(seen.tables[0].skipped.as_deref(), Some("the table is PAUSED"));
    let refused = catalog.announce_mending(table_id, Lsn(5)).await.unwrap_err();
    assert_eq!(refused.code(), Code::MirrorState);
}
