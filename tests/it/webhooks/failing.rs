//! Webhooks that fail, and workers that die during a delivery.

use pm::catalog::{Error, Posted};

use super::{deliveries, latest, let_messages_be_due, webhook};
use crate::{
    api::wire,
    support::{on_both_setups, receiver::Receiver},
};

const DAY: i64 = 86_400_000_000;

on_both_setups! {
    async fn a_refused_delivery_is_retried_with_the_same_id(app: &TestApp) {
        let receiver = Receiver::start().await;
        receiver.answer_next(&[500, 302]);
        let made = webhook(app, &receiver, &["product.created"]).await;
        let (stopper, worker) = app.start_worker().await;
        app.create(&[]).await;
        receiver.wait_for(1).await;
        let waiting = latest(app, &made, "queued").await;
        assert_eq!((&waiting["attempts"], &waiting["response_status"]), (&1.into(), &500.into()), "{waiting}");
        assert!(waiting["next_attempt_at"].as_str().unwrap() > waiting["updated_at"].as_str().unwrap(), "{waiting}");
        let failing = wire::get(app, &format!("/webhooks/{}", made["id"])).await.json();
        assert!(failing["failing_since"].is_string(), "{failing}");
        for attempts in 2..=3 {
            latest(app, &made, "queued").await;
            let_messages_be_due(app).await;
            receiver.wait_for(attempts).await;
        }
        let done = latest(app, &made, "done").await;
        assert_eq!((&done["attempts"], &done["error"]), (&3.into(), &serde_json::Value::Null), "a redirect is no taking");
        let messages = receiver.messages();
        assert!(messages.iter().all(|message| message.header("webhook-id") == messages[0].header("webhook-id")));
        let well = wire::get(app, &format!("/webhooks/{}", made["id"])).await.json();
        assert!(well["failing_since"].is_null() && well["enabled"] == true, "{well}");
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_webhook_that_answers_410_is_disabled(app: &TestApp) {
        let receiver = Receiver::start().await;
        receiver.answer_next(&[410]);
        let made = webhook(app, &receiver, &["product.created"]).await;
        let (stopper, worker) = app.start_worker().await;
        app.create(&[]).await;
        latest(app, &made, "dead").await;
        let path = format!("/webhooks/{}", made["id"]);
        let disabled = wire::get(app, &path).await.json();
        assert_eq!((&disabled["enabled"], &disabled["disabled_reason"]), (&false.into(), &"it answered 410 Gone".into()));
        app.create(&[]).await;
        assert_eq!(deliveries(app, &made).await.len(), 1, "nothing is queued for it");
        assert_eq!(wire::post(app, &format!("{path}/enable"), "").await.json()["enabled"], true);
        app.create(&[]).await;
        receiver.wait_for(2).await;
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_webhook_that_fails_for_days_is_disabled(app: &TestApp) {
        let receiver = Receiver::start().await;
        receiver.answer_next(&[503, 503]);
        let made = webhook(app, &receiver, &[]).await;
        let (stopper, worker) = app.start_worker().await;
        app.create(&[]).await;
        receiver.wait_for(1).await;
        latest(app, &made, "queued").await;
        let days_ago = pm::clock::Timestamp::now().0 - 6 * DAY;
        app.sql(&format!("UPDATE webhooks SET failing_since = {days_ago}")).await;
        let_messages_be_due(app).await;
        receiver.wait_for(2).await;
        let path = format!("/webhooks/{}", made["id"]);
        for _ in 0..1_500 {
            if wire::get(app, &path).await.json()["enabled"] == false {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let disabled = wire::get(app, &path).await.json();
        assert_eq!(disabled["disabled_reason"], "no delivery succeeded for five days", "{disabled}");
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_dead_workers_delivery_is_retried_and_its_late_result_ignored(app: &TestApp) {
        let receiver = Receiver::start().await;
        let made = webhook(app, &receiver, &["product.created"]).await;
        app.create(&[]).await;
        let claimed = app.app.catalog.claim_deliveries(64).await.unwrap().pop().expect("a message is due");
        assert!(app.app.catalog.claim_deliveries(64).await.unwrap().is_empty(), "it is claimed once");
        let lease = app.app.catalog.delivery_leases().await.unwrap().pop().expect("it is held");
        app.app.catalog.take_deliveries(&[pm::domain::Lapsed { lease, holder_ended: true }]).await.unwrap();
        let (stopper, worker) = app.start_worker().await;
        receiver.wait_for(1).await;
        let done = latest(app, &made, "done").await;
        assert_eq!(done["attempts"], 1, "a lost claim is no attempt");
        let late = app.app.catalog.settle_delivery(claimed, Posted::Gone).await;
        assert!(matches!(late, Err(Error::LeaseLost)), "{late:?}");
        assert_eq!(wire::get(app, &format!("/webhooks/{}", made["id"])).await.json()["enabled"], true);
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_slow_webhook_does_not_delay_others(app: &TestApp) {
        let (slow, quick) = (Receiver::start().await, Receiver::start().await);
        webhook(app, &slow, &[]).await;
        let well = webhook(app, &quick, &[]).await;
        for _ in 0..20 {
            app.create(&[]).await;
        }
        // No webhook has more deliveries in flight than its limit.
        let mut claimed = Vec::new();
        loop {
            let some = app.app.catalog.claim_deliveries(64).await.unwrap();
            if some.is_empty() {
                break;
            }
            claimed.extend(some);
        }
        assert_eq!(claimed.len(), 8, "four for each");
        for delivery in claimed.into_iter().filter(|delivery| delivery.url == quick.url()) {
            app.app.catalog.settle_delivery(delivery, Posted::Accepted { status: 200 }).await.unwrap();
        }
        let next = app.app.catalog.claim_deliveries(64).await.unwrap();
        assert!(next.iter().all(|delivery| delivery.url == quick.url()) && !next.is_empty());
        assert_eq!(wire::send(app.address, "DELETE", &format!("/webhooks/{}", well["id"]), &[], b"").await.status, 204);
        let gone = app.app.catalog.settle_delivery(next[0].clone(), Posted::Accepted { status: 200 }).await;
        assert!(matches!(gone, Err(Error::LeaseLost)), "its webhook was deleted: {gone:?}");
    }
}
