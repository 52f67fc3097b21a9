use jiff::Timestamp;
use millrace_catalog::tokens::{AdminToken, NewToken, Presented, Role, ensure_admin_token};
use millrace_catalog::{Catalog, SecretKeys, migrate};
use millrace_terms::Code;
use secrecy::{ExposeSecret, SecretString};

use crate::database::{catalog, empty, raw};

fn new(name: &str, role: Role) -> NewToken {
    NewToken { name: name.into(), role, created_by: "admin".into(), expires_at: None }
}

#[tokio::test]
async fn a_token_is_shown_once_found_by_its_id_and_gone_when_revoked() {
    let catalog = catalog().await;
    let (token, secret) = catalog.create_token(&new("ci", Role::Viewer)).await.unwrap();
    let presented = Presented::parse(secret.expose_secret()).unwrap();
    assert_eq!(presented.id, token.id);
    let (found, hash) = catalog.find_token(&token.id).await.unwrap().unwrap();
    assert_eq!(found, token);
    assert!(presented.matches(&hash));
    assert_eq!(catalog.create_token(&new("ci", Role::Admin)).await.unwrap_err().code(), Code::TokenExists);

    catalog.note_token_use(&token.id).await.unwrap();
    let listed = catalog.list_tokens(&Default::default()).await.unwrap().items;
    assert!(listed.len() == 1 && listed[0].last_used_at.is_some(), "{listed:?}");
    assert_eq!(catalog.delete_token("ci").await.unwrap().id, token.id);
    assert_eq!(catalog.find_token(&token.id).await.unwrap(), None);
    assert_eq!(catalog.delete_token("ci").await.unwrap_err().code(), Code::TokenNotFound);
}

#[tokio::test]
async fn an_expired_token_does_not_count() {
    let catalog = catalog().await;
    assert!(!catalog.has_tokens().await.unwrap());
    let expired = NewToken { expires_at: Some(Timestamp::UNIX_EPOCH), ..new("old", Role::Admin) };
    catalog.create_token(&expired).await.unwrap();
    assert!(!catalog.has_tokens().await.unwrap());
    catalog.create_token(&new("now", Role::Viewer)).await.unwrap();
    assert!(catalog.has_tokens().await.unwrap());
}

#[tokio::test]
async fn an_admin_token_is_made_once_or_taken_as_given() {
    let url = empty().await;
    migrate(&url).await.unwrap();
    let AdminToken::Made(made) = ensure_admin_token(&url, None).await.unwrap() else {
        panic!("one was there")
    };
    assert!(matches!(ensure_admin_token(&url, None).await.unwrap(), AdminToken::Kept));

    let given = SecretString::from(format!("mlr_{}_{}", "0a".repeat(6), "1b".repeat(32)));
    for _ in 0..2 {
        assert!(matches!(ensure_admin_token(&url, Some(&given)).await.unwrap(), AdminToken::Given));
    }
    let catalog = Catalog::connect(&url, SecretKeys::default()).await.unwrap();
    let find = async |token: &SecretString| {
        let presented = Presented::parse(token.expose_secret()).unwrap();
        let found = catalog.find_token(&presented.id).await.unwrap();
        found.is_some_and(|(_, hash)| presented.matches(&hash))
    };
    assert!(find(&given).await && !find(&made).await, "the given one replaces the other");

    let rows = raw(&url).await.query("select hash from api_tokens", &[]).await.unwrap();
    assert!(rows.len() == 1 && !rows[0].get::<_, String>(0).contains(&"1b".repeat(32)));
    let bad = SecretString::from("hunter2");
    let error = ensure_admin_token(&url, Some(&bad)).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && !error.to_string().contains("hunter2"), "{error}");
}
