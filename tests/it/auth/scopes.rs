//! Permissions of a principal: by its scopes, and on its own products only.

use serde_json::{Value, json};

use super::{send, with_issuer};
use crate::{
    api::wire,
    support::{
        Setup, TestApp,
        issuer::{Issuer, SigningKey},
    },
};

fn product(user_id: Option<&str>) -> Value {
    let mut body = json!({"product_name": "Sample Product", "product_price": 1});
    if let Some(user_id) = user_id {
        body["user_id"] = user_id.into();
    }
    body
}

async fn create(app: &TestApp, token: &str) -> i64 {
    let answer = send(app, "POST", "/products", token, Some(&product(None))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_i64().unwrap()
}

async fn users_change_only_their_own_products(app: &TestApp, issuer: &Issuer, key: &SigningKey) {
    let token = |subject: &str, scope: &str| key.token(&issuer.claims(subject, scope));
    let (alice, bob) = (token("alice", "products:read products:write"), token("bob", "products:read products:write"));
    let admin = token("root", "admin");
    let id = create(app, &alice).await;
    let path = format!("/products/{id}");
    let seen = send(app, "GET", &path, &bob, None).await;
    assert_eq!((seen.status, seen.json()["user_id"].as_str()), (200, Some("alice")));
    for (principal, body, status) in
        [(&alice, Some("alice"), 201), (&alice, Some("bob"), 403), (&admin, Some("bob"), 201)]
    {
        let answer = send(app, "POST", "/products", principal, Some(&product(body))).await;
        assert_eq!(answer.status, status, "{body:?}: {}", answer.text());
    }
    let answer = send(app, "DELETE", &path, &bob, None).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("forbidden")));
    let escaped: String = id.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = send(app, "DELETE", &format!("/products/{escaped}"), &bob, None).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("forbidden")), "a percent-encoded id");
    assert_eq!(send(app, "DELETE", "/products/999999", &bob, None).await.status, 404);
    assert_eq!(send(app, "DELETE", &path, &alice, None).await.status, 204);
    let id = create(app, &alice).await;
    assert_eq!(send(app, "DELETE", &format!("/products/{id}"), &admin, None).await.status, 204);
    for (path, principal, status) in [
        ("/users/alice", &alice, 200),
        ("/users/alice", &bob, 403),
        ("/users/alice", &admin, 200),
        ("/users", &bob, 403),
        ("/users", &admin, 200),
        ("/queue", &bob, 403),
        ("/queue", &admin, 200),
        ("/metrics", &bob, 403),
        ("/metrics", &admin, 200),
    ] {
        let answer = send(app, "GET", path, principal, None).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_change_only_their_own_products_embedded() {
    with_issuer(Setup::Embedded, users_change_only_their_own_products).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_change_only_their_own_products_full() {
    with_issuer(Setup::Full, users_change_only_their_own_products).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_product_is_returned_only_with_the_scope() {
    with_issuer(Setup::Embedded, async |app, issuer, key| {
        let token = |scope: &str| key.token(&issuer.claims("alice", scope));
        let id = create(app, &token("products:write")).await;
        let path = format!("/products/{id}");
        let reader = token("products:read");
        assert_eq!(send(app, "GET", &path, &reader, None).await.header("x-cache"), "miss");
        assert_eq!(send(app, "GET", &path, &reader, None).await.header("x-cache"), "hit");
        assert_eq!(wire::get(app, &path).await.status, 401);
        let answer = send(app, "GET", &path, &token("products:write openid"), None).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("insufficient_scope")));
        assert!(answer.header("www-authenticate").contains("scope=\"products:read\""));
        let answer = send(app, "POST", "/products", &reader, Some(&product(None))).await;
        assert_eq!(answer.status, 403);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_resources_need_no_token() {
    with_issuer(Setup::Embedded, async |app, _, _| {
        for (path, status) in
            [("/", 200), ("/healthz", 200), ("/readyz", 200), ("/images/ab/cd.webp", 404), ("/nowhere", 404)]
        {
            let answer = wire::get(app, path).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
        let options = wire::send(app.address, "OPTIONS", "/products", &[], b"").await;
        assert_eq!((options.status, options.header("allow").contains("POST")), (204, true));
        assert_eq!(wire::send(app.address, "PUT", "/products", &[], b"").await.status, 405);
    })
    .await;
}
