//! Requests with an idempotency key are executed once.

use serde_json::json;

use super::{problem, wire, wrong_fields};
use crate::support::{Origin, TestApp, on_both_setups};

const BODY: &str = r#"{"user_id": "u", "product_name": "once", "product_price": 1.50,
    "product_images": ["https://example.com/a.jpg"]}"#;

async fn post(app: &TestApp, path: &str, key: &str, body: &str) -> wire::Answer {
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
    wire::send(app.address, "POST", path, &headers, body.as_bytes()).await
}

async fn count(app: &TestApp) -> usize {
    app.get_json("/products?limit=100").await["items"].as_array().unwrap().len()
}

on_both_setups! {
    async fn a_repeated_request_is_executed_once_with_the_same_response(app: &TestApp) {
        let first = post(app, "/products", "k-1", BODY).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""));
        // Later changes of the product do not matter.
        app.drain().await;
        let again = post(app, "/products", "k-1", BODY).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"));
        assert_eq!((again.text(), again.header("location")), (first.text(), first.header("location")));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        let respelled = r#"{"product_images":["https:\/\/example.com\/a.jpg"],"product_price":1.5,"product_name":"once","user_id":"u"}"#;
        let respelled = post(app, "/products", "k-1", respelled).await;
        assert_eq!((respelled.status, respelled.text()), (201, first.text()));
        let other = BODY.replace("1.50", "1.51");
        problem(&post(app, "/products", "k-1", &other).await, 422, "idempotency_key_reused", "another body");
        let list = format!("[{BODY}]");
        problem(&post(app, "/products:batch", "k-1", &list).await, 422, "idempotency_key_reused", "another path");
        assert_eq!(post(app, "/products", "k-2", BODY).await.status, 201);
        assert_eq!(count(app).await, 2);
    }

    async fn prices_are_compared_exactly(app: &TestApp) {
        let with_price = |price: &str| BODY.replace("1.50", price);
        let first = post(app, "/products", "exact", &with_price("999999999999.9981")).await;
        assert_eq!(first.status, 201, "{}", first.text());
        let same = post(app, "/products", "exact", &with_price("9999999999999981e-4")).await;
        assert_eq!((same.status, same.text()), (201, first.text()));
        let other = post(app, "/products", "exact", &with_price("999999999999.9980")).await;
        problem(&other, 422, "idempotency_key_reused", "another price");
        assert_eq!(count(app).await, 1);
    }

    async fn a_repeated_batch_is_answered_from_its_ids(app: &TestApp) {
        let long = "x".repeat(9_000);
        let wrong = BODY.replace("1.50", "-1");
        let items: Vec<_> = (0..100).map(|number| {
            let images = (0..number % 4).map(|image| format!("\"https://example.com/{number}-{image}.jpg\""));
            let images = images.collect::<Vec<_>>().join(",");
            format!(r#"{{"user_id": "u{number}", "product_name": "n", "product_description": "{long}", "product_price": 1,
                "product_images": [{images}]}}"#)
        }).collect();
        let list = format!("[{},{wrong}]", items.join(","));
        let first = post(app, "/products:batch", "b", &list).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, ""));
        let size = app.number("SELECT cast(max(length(body)) AS bigint) FROM idempotency_keys").await;
        assert!(size < 2_000, "the row has {size} bytes");
        // Each product may have changed since.
        let json = [("Content-Type", "application/json")];
        let changed = wire::send(app.address, "PATCH", "/products/1", &json, br#"{"product_name": "changed"}"#).await;
        assert_eq!(changed.status, 200);
        let again = post(app, "/products:batch", "b", &list).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"));
        assert_eq!(again.text(), first.text());
        assert_eq!(count(app).await, 100);
    }

    async fn a_repeated_request_names_a_deleted_product(app: &TestApp) {
        let first = post(app, "/products", "one", BODY).await;
        let list = format!("[{BODY},{BODY}]");
        post(app, "/products:batch", "two", &list).await;
        for id in [1, 2] {
            let deleted = wire::send(app.address, "DELETE", &format!("/products/{id}"), &[], b"").await;
            assert_eq!(deleted.status, 204);
        }
        assert_eq!(first.json()["id"], 1);
        let details = problem(&post(app, "/products", "one", BODY).await, 410, "gone", "a deleted product");
        assert!(details["detail"].as_str().unwrap().contains("product 1"), "{details}");
        let again = post(app, "/products:batch", "two", &list).await;
        let items = &again.json()["items"];
        assert_eq!((&items[0]["status"], &items[0]["error"]["code"]), (&json!(410), &json!("gone")));
        assert_eq!((&items[1]["status"], &items[1]["product"]["id"]), (&json!(201), &json!(3)));
        assert_eq!(again.json()["created"], 1);
        assert_eq!(count(app).await, 1);
    }

    async fn every_post_accepts_an_idempotency_key(app: &TestApp) {
        let replayed = async |path: &str, body: &str| {
            let first = post(app, path, path, body).await;
            assert!(first.status < 300, "{path}: {}", first.text());
            assert_eq!(first.header("idempotency-replayed"), "", "{path}");
            let again = post(app, path, path, body).await;
            assert_eq!((again.status, again.header("idempotency-replayed")), (first.status, "true"), "{path}");
            assert_eq!(again.header("location"), first.header("location"), "{path}");
            (first.json(), again.json())
        };
        let (first, again) = replayed("/users", r#"{"name": "N"}"#).await;
        assert_eq!(first, again);
        let (first, again) = replayed("/webhooks", r#"{"url": "https://example.com/hook"}"#).await;
        assert_eq!(first, again);
        assert!(first["secret"].is_string(), "the secret is shown to the same request again");
        let (first, again) = replayed(&format!("/webhooks/{}/enable", first["id"]), "").await;
        assert_eq!(first, again);

        let origin = Origin::start().await;
        let missing = json!({"url": origin.url("/missing.jpg")}).to_string();
        post(app, "/products", "product", &BODY.replace("https://example.com/a.jpg", &origin.url("/a.jpg"))).await;
        let (first, again) = replayed("/products/1/images", &missing).await;
        assert_eq!(first["images"][0]["id"], again["images"][0]["id"]);
        assert_eq!(app.product(&json!(1)).await["images"].as_array().map(Vec::len), Some(2));
        app.drain().await;
        let generations = async || app.number("SELECT cast(sum(generation) AS bigint) FROM images").await;
        let before = generations().await;
        replayed("/products/1/images/1/reprocess", "").await;
        app.drain().await;
        let again = post(app, "/products/1/images/1/reprocess", "/products/1/images/1/reprocess", "").await;
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(generations().await, before + 1);
        let dead = app.get_json("/queue/dead").await["items"][0]["id"].clone();
        let (first, again) = replayed(&format!("/queue/dead/{dead}/retry"), "").await;
        assert_eq!(first, again);
    }

    async fn a_principals_oldest_idempotency_keys_are_deleted_beyond_a_limit(app: &TestApp) {
        for key in ["a", "b", "c"] {
            post(app, "/products", key, BODY).await;
        }
        app.sql("UPDATE idempotency_keys SET created_at = created_at - 1000000 WHERE key = 'b'").await;
        assert_eq!(app.app.catalog.trim_keys(3).await.unwrap(), 0);
        assert_eq!(app.app.catalog.trim_keys(2).await.unwrap(), 1);
        assert_eq!(post(app, "/products", "a", BODY).await.header("idempotency-replayed"), "true");
        assert_eq!(post(app, "/products", "b", BODY).await.header("idempotency-replayed"), "");
    }

    async fn fifty_concurrent_requests_with_one_key_create_one_product(app: &TestApp) {
        let answers = futures_util::future::join_all((0..50).map(|_| post(app, "/products", "same", BODY))).await;
        let fresh = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
        assert_eq!(fresh, 1);
        for answer in &answers {
            assert_eq!((answer.status, answer.text()), (201, answers[0].text()));
        }
        assert_eq!(count(app).await, 1);
        assert_eq!(app.product(&json!(1)).await["images"].as_array().map(Vec::len), Some(1));
    }

    async fn a_failed_request_does_not_use_its_idempotency_key(app: &TestApp) {
        let wrong = BODY.replace("1.50", "-1");
        problem(&post(app, "/products", "k", &wrong).await, 422, "validation", "a wrong product");
        assert_eq!(post(app, "/products", "k", BODY).await.status, 201);
        assert_eq!(count(app).await, 1);
    }

    async fn an_idempotency_key_expires_after_a_day(app: &TestApp) {
        post(app, "/products", "old", BODY).await;
        app.sql("UPDATE idempotency_keys SET created_at = created_at - 86401000000").await;
        let again = post(app, "/products", "old", BODY).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, ""));
        assert_eq!(count(app).await, 2);
        post(app, "/products", "older", BODY).await;
        app.sql("UPDATE idempotency_keys SET created_at = created_at - 86401000000 WHERE key = 'older'").await;
        // The server's own cleanup may run first.
        assert!(app.app.catalog.delete_expired_keys().await.unwrap() <= 1);
        assert_eq!(app.app.catalog.delete_expired_keys().await.unwrap(), 0);
        assert_eq!(post(app, "/products", "old", BODY).await.header("idempotency-replayed"), "true");
    }

    async fn an_invalid_idempotency_key_is_refused(app: &TestApp) {
        for key in ["", "a b", &"k".repeat(256)] {
            let details = problem(&post(app, "/products", key, BODY).await, 422, "validation", key);
            assert_eq!(wrong_fields(&details), ["Idempotency-Key"], "{key}");
        }
        assert_eq!(post(app, "/products", &"k".repeat(255), BODY).await.status, 201);
    }
}
