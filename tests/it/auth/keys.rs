//! API keys: the permissions they grant, and their revocation.

use pm::domain::{ApiKey, KeyText, NewApiKey, Scopes, UserId};
use serde_json::json;
use std::time::Duration;

use super::send;
use crate::{
    api::wire,
    support::{Setup, TestApp, app},
};

async fn make(app: &TestApp, user: &str, scopes: &[&str], lifetime: Option<Duration>) -> (ApiKey, KeyText) {
    let scopes = Scopes::parse(scopes.iter().copied()).unwrap();
    let new = NewApiKey { name: None, user_id: UserId::parse(user).unwrap(), scopes, lifetime };
    app.app.catalog.create_api_key(new).await.unwrap()
}

async fn an_api_key_grants_its_scopes(app: &TestApp) {
    let (key, text) = make(app, "alice", &["products:read", "products:write"], None).await;
    let body = json!({"product_name": "Sample Product", "product_price": 1});
    let made = send(app, "POST", "/products", text.reveal(), Some(&body)).await;
    assert_eq!((made.status, made.json()["user_id"].as_str()), (201, Some("alice")), "{}", made.text());
    assert_eq!(send(app, "GET", "/products", text.reveal(), None).await.status, 200);
    assert_eq!(send(app, "GET", "/queue", text.reveal(), None).await.status, 403);
    assert_eq!(wire::get(app, "/products").await.status, 401);
    let (_, expired) = make(app, "alice", &["admin"], Some(Duration::ZERO)).await;
    assert_eq!(send(app, "GET", "/products", expired.reveal(), None).await.status, 401);
    let guessed = KeyText::of([7; 32]);
    assert_eq!(send(app, "GET", "/products", guessed.reveal(), None).await.status, 401);
    // Without an issuer the server refuses every access token.
    assert_eq!(send(app, "GET", "/products", "a.b.c", None).await.status, 401);

    // Another process revokes the key; this one may accept it for at most 5 s.
    app.another().await.catalog.revoke_api_key(key.id).await.unwrap();
    let begun = std::time::Instant::now();
    while send(app, "GET", "/products", text.reveal(), None).await.status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(7), "a revoked key is still accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let keys = app.app.catalog.api_keys().await.unwrap();
    assert_eq!(keys.iter().filter(|key| key.revoked_at.is_some()).count(), 1);
    assert!(keys[0].last_used_at.is_some(), "its use is noted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_grants_its_scopes_embedded() {
    app::run_with(Setup::Embedded, &[("PM_AUTH", "keys")], an_api_key_grants_its_scopes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_grants_its_scopes_full() {
    app::run_with(Setup::Full, &[("PM_AUTH", "keys")], an_api_key_grants_its_scopes).await;
}

async fn a_stream_ends_soon_after_its_api_key_is_revoked(app: &TestApp) {
    let (key, text) = make(app, "alice", &["products:read"], None).await;
    let (_, other) = make(app, "bob", &["products:read"], None).await;
    let open = async |text: &KeyText| {
        let request = reqwest::Client::new().get(app.url("/events")).bearer_auth(text.reveal());
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        response
    };
    let (mut stream, mut goes_on) = (open(&text).await, open(&other).await);
    assert!(stream.chunk().await.expect("a piece").is_some());
    assert!(goes_on.chunk().await.expect("a piece").is_some());
    app.another().await.catalog.revoke_api_key(key.id).await.unwrap();
    let end = async { while stream.chunk().await.expect("a piece or the end").is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the stream ends within 10 s");
    let more = tokio::time::timeout(Duration::from_millis(100), goes_on.chunk()).await;
    assert!(
        more.is_err() || more.is_ok_and(|piece| piece.is_ok_and(|piece| piece.is_some())),
        "the stream of another key continues"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_soon_after_its_api_key_is_revoked_embedded() {
    app::run_with(Setup::Embedded, &[("PM_AUTH", "keys")], a_stream_ends_soon_after_its_api_key_is_revoked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_soon_after_its_api_key_is_revoked_full() {
    app::run_with(Setup::Full, &[("PM_AUTH", "keys")], a_stream_ends_soon_after_its_api_key_is_revoked).await;
}
