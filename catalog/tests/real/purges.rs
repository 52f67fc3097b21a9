use std::time::Duration;

use millrace_catalog::follow::Followed;
use millrace_catalog::peers::CreateOptions;
use millrace_terms::TableName;

use crate::database::{catalog, mirror};

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_physical_delete_and_an_alteration_exclude_each_other() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let table = catalog.get_mirror("shop").await.unwrap().tables.remove(0).id;
    let lease = catalog.take_lease("shop", 0, TTL).await.unwrap().number;
    let follow = async |altering| {
        let source = TableName::new("public", "t0");
        let followed = Followed { source, plan: serde_json::json!({}), altering, changes: Vec::new() };
        catalog.follow_table(table, lease, &followed).await.unwrap();
    };
    assert!(catalog.announce_purge(table, Duration::ZERO).await.unwrap());
    assert!(catalog.may_alter(table).await.unwrap(), "an announcement ends by itself");
    assert!(catalog.announce_purge(table, TTL).await.unwrap());
    follow(true).await;
    assert!(!catalog.may_alter(table).await.unwrap(), "whoever alters waits");
    assert!(!catalog.announce_purge(table, TTL).await.unwrap(), "and nobody begins another delete");
    catalog.prolong_purge(table, Duration::ZERO).await.unwrap();
    assert!(catalog.may_alter(table).await.unwrap());
    catalog.prolong_purge(table, TTL).await.unwrap();
    assert!(!catalog.may_alter(table).await.unwrap(), "one that goes on is waited for to its end");
    follow(false).await;
    assert!(catalog.announce_purge(table, TTL).await.unwrap());
}
