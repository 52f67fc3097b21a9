use millrace_catalog::drafts::{CheckReport, Draft};
use millrace_catalog::page::PageRequest;
use millrace_catalog::peers::{CreateOptions, Created, PeerFilter};
use millrace_catalog::spec::{PeerConfig, Secret};
use millrace_catalog::{Catalog, SecretKeys, migrate};
use millrace_terms::Code;

use crate::database::{PASSWORD, catalog, empty, keys, mirror, raw, source};

#[tokio::test]
async fn a_peer_is_created_once_and_compared_with_its_secrets() {
    let catalog = catalog().await;
    let again = CreateOptions { allow_existing: true, ..Default::default() };
    assert!(matches!(catalog.create_peer(&source(), &again).await.unwrap(), Created::Existing(_)));
    let refused = catalog.create_peer(&source(), &CreateOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PeerExists);
    let mut other = source();
    let PeerConfig::Postgres(config) = &mut other.config else { panic!("a source") };
    config.password = Secret::new("another-password");
    let refused = catalog.create_peer(&other, &again).await.unwrap_err();
    assert_eq!(refused.code(), Code::PeerExists);
    let text = format!("{refused:?}");
    assert!(
        text.contains("password") && !text.contains(PASSWORD) && !text.contains("another-password"),
        "{text}"
    );
}

#[tokio::test]
async fn secrets_are_sealed_bound_to_their_row_and_resealed_under_a_new_key() {
    let url = empty().await;
    migrate(&url).await.unwrap();
    let (old, new) = (SecretKeys::generate(), SecretKeys::generate().replacen(':', "x:", 1));
    let first = Catalog::connect(&url, keys(&old)).await.unwrap();
    first.create_peer(&source(), &CreateOptions::default()).await.unwrap();

    let sql = raw(&url).await;
    let sealed: Vec<u8> = sql.query_one("select sealed from peers", &[]).await.unwrap().get(0);
    assert!(!sealed.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));

    let stranger = Catalog::connect(&url, keys(&new)).await.unwrap();
    assert_eq!(stranger.get_peer("pg").await.unwrap_err().code(), Code::SecretKeyMissing);

    let rotated = Catalog::connect(&url, keys(&format!("{new},{old}"))).await.unwrap();
    first.create_draft(&Draft::Peer(source())).await.unwrap();
    assert_eq!(rotated.rotate_keys().await.unwrap().into_result(), Ok(2));
    assert_eq!(rotated.rotate_keys().await.unwrap().into_result(), Ok(0), "a repeat finds nothing to do");
    let unused = rotated.key_uses().await.unwrap();
    assert_eq!(unused.iter().map(|used| used.objects).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(stranger.get_peer("pg").await.unwrap().spec, source());

    let error = first.rotate_keys().await.unwrap().into_result().unwrap_err();
    assert_eq!(error.code(), Code::SecretKeyMissing);
    assert!(error.message().contains(&new[..9]), "it names the key: {error}");

    sql.batch_execute("update peers set name = 'moved'").await.unwrap();
    assert!(stranger.get_peer("moved").await.is_err(), "a sealed value of another row does not open");
}

#[tokio::test]
async fn a_peer_in_use_stays() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let refused = catalog.delete_peer("pg", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PeerInUse);
    assert!(refused.message().contains("shop"), "{refused}");
    catalog.delete_mirror("shop", &[]).await.unwrap();
    let etag = catalog.get_peer("pg").await.unwrap().etag;
    assert_eq!(catalog.delete_peer("pg", "stale").await.unwrap_err().code(), Code::EditConflict);
    catalog.delete_peer("pg", &etag).await.unwrap();
    assert_eq!(catalog.get_peer("pg").await.unwrap_err().code(), Code::PeerNotFound);
}

#[tokio::test]
async fn lists_go_page_by_page() {
    let catalog = catalog().await;
    let list = async |token: String, filter: PeerFilter| {
        catalog.list_peers(&PageRequest { size: 1, token }, &filter).await.unwrap()
    };
    let first = list(String::new(), PeerFilter::default()).await;
    assert_eq!(first.items[0].spec.name, "ch");
    let second = list(first.next.unwrap(), PeerFilter::default()).await;
    assert_eq!((second.items[0].spec.name.as_str(), second.next), ("pg", None));
    let sources = list(String::new(), PeerFilter { kind: "postgres", ..PeerFilter::default() }).await;
    assert_eq!((sources.items[0].spec.name.as_str(), sources.next), ("pg", None));
    let named = list(String::new(), PeerFilter { name_prefix: "p".into(), ..PeerFilter::default() }).await;
    assert_eq!(named.items.len(), 1);
}

#[tokio::test]
async fn a_draft_is_sealed_answered_and_deleted() {
    let catalog = catalog().await;
    let id = catalog.create_draft(&Draft::Peer(source())).await.unwrap();
    assert_eq!(catalog.draft_result(id).await.unwrap(), None);
    assert_eq!(catalog.open_draft(id).await.unwrap(), Draft::Peer(source()));
    catalog.write_draft_result(id, &CheckReport::default()).await.unwrap();
    assert_eq!(catalog.draft_result(id).await.unwrap(), Some(CheckReport::default()));
    catalog.delete_draft(id).await.unwrap();
    assert_eq!(catalog.open_draft(id).await.unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn a_peer_in_use_changes_but_for_its_database_and_fences_its_streams() {
    let catalog = catalog().await;
    catalog.create_mirror(&mirror("shop", 1), &CreateOptions::default()).await.unwrap();
    let lease = catalog.get_stream("shop", 0).await.unwrap().lease;
    let mut other = source();
    let PeerConfig::Postgres(config) = &mut other.config else { panic!("a source") };
    config.host = "new.internal".into();
    let etag = catalog.get_peer("pg").await.unwrap().etag;
    let updated = catalog.update_peer(&other, &etag, "r1").await.unwrap();
    assert!(updated.etag != etag && updated.request_id == "r1", "{updated:?}");
    assert_eq!(catalog.get_peer("pg").await.unwrap().spec, other);
    let fenced = catalog.get_stream("shop", 0).await.unwrap().lease;
    assert!(fenced > lease, "its next attempt connects anew");
    catalog.update_peer(&other, "", "").await.unwrap();
    assert_eq!(catalog.get_stream("shop", 0).await.unwrap().lease, fenced, "nothing of it changed");
    assert_eq!(catalog.update_peer(&other, &etag, "").await.unwrap_err().code(), Code::EditConflict);

    let PeerConfig::Postgres(config) = &mut other.config else { panic!("a source") };
    config.database = "another".into();
    let refused = catalog.update_peer(&other, "", "").await.unwrap_err();
    assert_eq!((refused.code(), refused.metadata()["mirrors"].as_str()), (Code::PeerInUse, "shop"));
    catalog.delete_mirror("shop", &[]).await.unwrap();
    assert_eq!(catalog.update_peer(&other, "", "").await.unwrap().spec, other);
}
