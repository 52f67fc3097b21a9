use millrace_catalog::{Catalog, SecretKeys, migrate};
use millrace_terms::Code;

use crate::database::{empty, keys, raw};

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_at_once_both_succeed_and_one_does_the_work() {
    let url = empty().await;
    let (one, two) = tokio::join!(migrate(&url), migrate(&url));
    let (one, two) = (one.unwrap(), two.unwrap());
    let worked = [&one, &two].iter().filter(|m| m.from < m.to).count();
    assert_eq!(worked, 1, "{one:?} {two:?}");
    let count: i64 =
        raw(&url).await.query_one("select count(*) from installation", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn an_older_catalog_is_refused_and_a_newer_one_is_not_migrated() {
    let url = empty().await;
    let secrets = keys(&SecretKeys::generate());
    let catalog = Catalog::connect(&url, secrets).await.unwrap();
    assert_eq!(catalog.check_version().await.unwrap_err().code(), Code::CatalogVersion);
    migrate(&url).await.unwrap();
    catalog.check_version().await.unwrap();
    let sql = "insert into refinery_schema_history (version, name, applied_on, checksum) values (9999, 'future', '2030-01-01T00:00:00Z', '1')";
    raw(&url).await.batch_execute(sql).await.unwrap();
    assert_eq!(migrate(&url).await.unwrap_err().code(), Code::CatalogVersion);
    catalog.check_version().await.unwrap();
}

#[tokio::test]
async fn an_unreachable_catalog_is_told_without_its_password() {
    let error = Catalog::connect("postgres://u:hunter2@127.0.0.1:1/d", keys(&SecretKeys::generate()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::CatalogUnreachable);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn the_installation_stays_the_same() {
    let url = empty().await;
    migrate(&url).await.unwrap();
    let secrets = keys(&SecretKeys::generate());
    let first = Catalog::connect(&url, secrets.clone()).await.unwrap().installation().await.unwrap();
    migrate(&url).await.unwrap();
    let second = Catalog::connect(&url, secrets).await.unwrap().installation().await.unwrap();
    assert_eq!(first, second);
    assert!(first.0.len() == 6 && first.0.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
}
