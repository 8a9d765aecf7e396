//! Webhooks: which events they get, signatures, retries, and refused addresses.

mod failing;
mod refusing;
mod secrets;

use std::time::Duration;

use serde_json::{Value, json};
use standardwebhooks::Webhook as Signer;

use crate::{
    api::wire,
    support::{Origin, TestApp, images, on_both_setups, receiver::Receiver},
};

/// Creates a webhook for `receiver` and returns it.
async fn webhook(app: &TestApp, receiver: &Receiver, types: &[&str]) -> Value {
    let body = json!({"url": receiver.url(), "types": types});
    let answer = wire::post(app, "/webhooks", body.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("location"), format!("/webhooks/{}", answer.json()["id"]));
    answer.json()
}

async fn deliveries(app: &TestApp, webhook: &Value) -> Vec<Value> {
    let page = wire::get(app, &format!("/webhooks/{}/deliveries", webhook["id"])).await;
    page.json()["items"].as_array().unwrap().clone()
}

/// Waits until the webhook's latest delivery is in this state.
async fn latest(app: &TestApp, webhook: &Value, state: &str) -> Value {
    for _ in 0..1_500 {
        if let Some(delivery) = deliveries(app, webhook).await.first()
            && delivery["state"] == state
        {
            return delivery.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not {state}: {:?}", deliveries(app, webhook).await);
}

/// Returns all deliveries, once each of them is in `state`.
async fn all(app: &TestApp, webhook: &Value, state: &str) -> Vec<Value> {
    for _ in 0..1_500 {
        let deliveries = deliveries(app, webhook).await;
        if deliveries.iter().all(|delivery| delivery["state"] == state) {
            return deliveries;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not {state}: {:?}", deliveries(app, webhook).await);
}

/// Makes every waiting delivery due, and ends every pause.
async fn let_messages_be_due(app: &TestApp) {
    app.sql("UPDATE webhooks SET paused_until = NULL").await;
    app.sql("UPDATE webhook_deliveries SET run_at = 0 WHERE state = 'queued'").await;
}

on_both_setups! {
    async fn a_webhook_gets_its_event_types_signed_and_once(app: &TestApp) {
        let (receiver, other, origin) = (Receiver::start().await, Receiver::start().await, Origin::start().await);
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 48));
        let made = webhook(app, &receiver, &["product.created", "image.ready"]).await;
        webhook(app, &other, &["product.deleted"]).await;
        let (stopper, worker) = app.start_worker().await;
        let product = app.create(&[origin.url("/a.jpg")]).await;
        app.settled(&product["id"]).await;
        let messages = receiver.wait_for(2).await;
        let secret = made["secret"].as_str().unwrap();
        let mut kinds = Vec::new();
        for message in &messages {
            Signer::new(secret).unwrap().verify(&message.body, &message.headers).expect("a valid signature");
            let event = message.json();
            assert_eq!(event["data"]["product_id"], product["id"], "{event}");
            assert_eq!(event["data"]["user_id"], "seller");
            assert!(message.header("webhook-id").starts_with("evt_"));
            kinds.push(event["type"].as_str().unwrap().to_owned());
        }
        kinds.sort();
        assert_eq!(kinds, ["image.ready", "product.created"]);
        let sent = all(app, &made, "done").await;
        assert!(sent.iter().all(|delivery| delivery["response_status"] == 204 && delivery["attempts"] == 1), "{sent:?}");
        wire::send(app.address, "DELETE", &format!("/products/{}", product["id"]), &[], b"").await;
        assert_eq!(other.wait_for(1).await[0].json()["type"], "product.deleted");
        assert_eq!(receiver.messages().len(), 2, "it gets no other event, and none twice");
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_webhook_secret_is_shown_once_and_may_be_chosen(app: &TestApp) {
        let receiver = Receiver::start().await;
        let made = webhook(app, &receiver, &[]).await;
        assert!(made["secret"].as_str().unwrap().starts_with("whsec_"), "{made}");
        let path = format!("/webhooks/{}", made["id"]);
        for shown in [wire::get(app, &path).await.json(), wire::get(app, "/webhooks").await.json()["items"][0].clone()] {
            assert!(shown.get("secret").is_none(), "{shown}");
            assert_eq!((shown["enabled"].as_bool(), &shown["types"]), (Some(true), &json!([])));
        }
        let own = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
        let body = json!({"url": receiver.url(), "secret": own});
        assert_eq!(wire::post(app, "/webhooks", body.to_string()).await.json()["secret"], own);
        assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 204);
        assert_eq!(wire::get(app, &path).await.status, 404);
        assert_eq!(wire::get(app, &format!("{path}/deliveries")).await.status, 404);
    }

    async fn a_webhook_at_a_private_address_is_refused(app: &TestApp) {
        for url in ["http://10.0.0.1/hook", "http://169.254.169.254/", "http://[::1]/", "ftp://shop.example/", "x"] {
            let answer = wire::post(app, "/webhooks", json!({"url": url}).to_string()).await;
            assert_eq!(answer.status, 422, "{url}: {}", answer.text());
            assert_eq!(answer.json()["errors"][0]["field"], "url");
        }
        let answer = wire::post(app, "/webhooks", r#"{"types": ["x"], "secret": "y", "more": 1}"#).await;
        let errors = answer.json()["errors"].as_array().unwrap().len();
        assert_eq!((answer.status, errors), (422, 4), "{}", answer.text());
    }

    async fn deliveries_are_listed_page_by_page_and_sent_again(app: &TestApp) {
        let receiver = Receiver::start().await;
        let made = webhook(app, &receiver, &["product.created"]).await;
        let (stopper, worker) = app.start_worker().await;
        for _ in 0..3 {
            app.create(&[]).await;
        }
        receiver.wait_for(3).await;
        latest(app, &made, "done").await;
        let path = format!("/webhooks/{}/deliveries", made["id"]);
        let first = wire::get(app, &format!("{path}?limit=2")).await;
        let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
        assert!(first.header("link").contains(&cursor));
        let rest = wire::get(app, &format!("{path}?limit=2&cursor={cursor}")).await.json();
        assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
        let oldest = &rest["items"][0];
        let again = wire::post(app, &format!("{path}/{}/retry", oldest["id"]), "").await;
        assert_eq!(again.status, 202, "{}", again.text());
        let messages = receiver.wait_for(4).await;
        assert_eq!(messages[3].header("webhook-id"), oldest["message_id"].as_str().unwrap());
        assert_eq!(wire::post(app, &format!("{path}/999999/retry"), "").await.status, 404);
        stopper.cancel();
        worker.await.unwrap();
    }
}
