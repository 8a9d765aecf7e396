//! Requests that bear an idempotency key are carried out once.

use serde_json::json;

use super::{problem, wire, wrong_fields};
use crate::support::{TestApp, on_both_setups};

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
    async fn the_same_request_is_answered_alike_and_done_once(app: &TestApp) {
        let first = post(app, "/products", "k-1", BODY).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""));
        // What has become of the product since makes no difference.
        app.drain().await;
        let again = post(app, "/products", "k-1", BODY).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"));
        assert_eq!((again.text(), again.header("location")), (first.text(), first.header("location")));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        let other = BODY.replace("1.50", "1.5");
        problem(&post(app, "/products", "k-1", &other).await, 422, "idempotency_key_reused", "another body");
        let list = format!("[{BODY}]");
        problem(&post(app, "/products:batch", "k-1", &list).await, 422, "idempotency_key_reused", "another path");
        assert_eq!(post(app, "/products", "k-2", BODY).await.status, 201);
        assert_eq!(count(app).await, 2);
    }

    async fn fifty_at_a_time_make_one_product(app: &TestApp) {
        let answers = futures_util::future::join_all((0..50).map(|_| post(app, "/products", "same", BODY))).await;
        let fresh = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
        assert_eq!(fresh, 1);
        for answer in &answers {
            assert_eq!((answer.status, answer.text()), (201, answers[0].text()));
        }
        assert_eq!(count(app).await, 1);
        assert_eq!(app.product(&json!(1)).await["images"].as_array().map(Vec::len), Some(1));
    }

    async fn a_request_that_failed_leaves_its_key_free(app: &TestApp) {
        let wrong = BODY.replace("1.50", "-1");
        problem(&post(app, "/products", "k", &wrong).await, 422, "validation", "a wrong product");
        assert_eq!(post(app, "/products", "k", BODY).await.status, 201);
        assert_eq!(count(app).await, 1);
    }

    async fn a_key_is_forgotten_after_a_day(app: &TestApp) {
        post(app, "/products", "old", BODY).await;
        app.sql("UPDATE idempotency_keys SET created_at = created_at - 86401000000").await;
        let again = post(app, "/products", "old", BODY).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, ""));
        assert_eq!(count(app).await, 2);
        post(app, "/products", "older", BODY).await;
        app.sql("UPDATE idempotency_keys SET created_at = created_at - 86401000000 WHERE key = 'older'").await;
        // The server's own upkeep may come first.
        assert!(app.app.catalog.forget_keys().await.unwrap() <= 1);
        assert_eq!(app.app.catalog.forget_keys().await.unwrap(), 0);
        assert_eq!(post(app, "/products", "old", BODY).await.header("idempotency-replayed"), "true");
    }

    async fn a_key_that_cannot_be_one_is_refused(app: &TestApp) {
        for key in ["", "a b", &"k".repeat(256)] {
            let told = problem(&post(app, "/products", key, BODY).await, 422, "validation", key);
            assert_eq!(wrong_fields(&told), ["Idempotency-Key"], "{key}");
        }
        assert_eq!(post(app, "/products", &"k".repeat(255), BODY).await.status, 201);
    }
}
