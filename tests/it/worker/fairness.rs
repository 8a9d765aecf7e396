//! Users take turns, busy hosts are skipped, and each user's backlog is limited.

use std::time::Duration;

use pm::{
    catalog::{Claimed, Due, Found},
    domain::{AtCapacity, UserId},
};
use serde_json::{Value, json};

use crate::support::{Setup, TestApp, app::run_with, on_both_setups};

async fn queue(app: &TestApp, user: &str, images: &[&str]) -> Value {
    let product = json!({"user_id": user, "product_name": "n", "product_price": 1, "product_images": images});
    let answer = app.post("/products", &product).await;
    assert_eq!(answer.status(), 201);
    answer.json().await.expect("a product")
}

/// Waits until the server's relay, if any, has published all jobs: it locks their rows for a moment.
async fn handed_over(app: &TestApp) {
    while app.app.queue.needs_relay() && app.number("SELECT count(*) FROM jobs WHERE dispatched_at IS NULL").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn next(app: &TestApp, after: Option<&UserId>, busy: AtCapacity) -> Found {
    handed_over(app).await;
    app.app.catalog.claim(Due::Next { after: after.cloned(), at_capacity: busy }).await.expect("the database answers")
}

async fn claimed(app: &TestApp, after: Option<&UserId>) -> Claimed {
    next(app, after, AtCapacity::default()).await.claimed().expect("a due job")
}

async fn clear(app: &TestApp) {
    app.sql("DELETE FROM jobs").await;
    app.sql("DELETE FROM images").await;
}

on_both_setups! {
    async fn users_take_turns_and_their_jobs_stay_in_order(app: &TestApp) {
        let many: Vec<_> = (0..20).map(|number| format!("https://a.example/{number}.jpg")).collect();
        queue(app, "a", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
        queue(app, "b", &["https://b.example/0.jpg", "https://b.example/1.jpg"]).await;
        queue(app, "c", &["https://c.example/0.jpg"]).await;
        let (mut last, mut order) = (None, Vec::new());
        for _ in 0..6 {
            let claimed = claimed(app, last.as_ref()).await;
            last.clone_from(&claimed.job.user_id);
            order.push(format!("{:?}", claimed.source).split("//").nth(1).unwrap_or_default().replace("\")", ""));
        }
        let expected = [
            "a.example/0.jpg", "b.example/0.jpg", "c.example/0.jpg", "a.example/1.jpg", "b.example/1.jpg", "a.example/2.jpg",
        ];
        assert_eq!(order, expected);
        clear(app).await;
    }

    async fn busy_hosts_and_busy_users_are_skipped(app: &TestApp) {
        queue(app, "a", &["https://slow.example/0.jpg", "https://slow.example:8443/1.jpg", "https://quick.example/2.jpg"]).await;
        queue(app, "b", &["https://slow.example/3.jpg"]).await;
        let busy = |users: &[&str], hosts: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            AtCapacity { users: owned(users), hosts: owned(hosts) }
        };
        let quick = next(app, None, busy(&[], &["slow.example", "slow.example:8443"])).await.claimed().expect("a due job");
        assert_eq!(quick.job.host.as_deref(), Some("quick.example"));
        assert!(matches!(next(app, None, busy(&[], &["slow.example", "slow.example:8443"])).await, Found::AtCapacity));
        let other = next(app, None, busy(&["b"], &["slow.example"])).await.claimed().expect("a due job");
        assert_eq!(other.job.host.as_deref(), Some("slow.example:8443"));
        assert!(matches!(next(app, None, busy(&["a", "b"], &[])).await, Found::AtCapacity));
        let rest = [claimed(app, None).await, claimed(app, None).await];
        assert!(rest.iter().all(|claimed| claimed.job.host.as_deref() == Some("slow.example")));
        assert!(matches!(next(app, None, AtCapacity::default()).await, Found::Nothing));
        clear(app).await;
    }

    async fn jobs_queued_by_an_older_version_are_claimed(app: &TestApp) {
        queue(app, "a", &["https://a.example/0.jpg"]).await;
        app.sql("UPDATE jobs SET user_id = NULL, host = NULL").await;
        assert!(claimed(app, None).await.job.user_id.is_none());
        clear(app).await;
    }
}

async fn refuses_more_than_may_wait(setup: Setup) {
    run_with(setup, &[("PM_MAX_WAITING_JOBS_PER_USER", "3")], async |app: &TestApp| {
        queue(app, "a", &["https://a.example/0.jpg", "https://a.example/1.jpg"]).await;
        let more = json!({
            "user_id": "a", "product_name": "n", "product_price": 1,
            "product_images": ["https://a.example/2.jpg", "https://a.example/3.jpg"],
        });
        let refused = app.post("/products", &more).await;
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
        let problem: Value = refused.json().await.expect("a problem");
        assert_eq!(problem["detail"], "user a already has 2 images in the queue; the limit is 3");
        queue(app, "b", &["https://a.example/2.jpg", "https://a.example/3.jpg"]).await;
        clear(app).await;
    })
    .await;
}

#[tokio::test]
async fn waiting_images_per_user_are_limited_embedded() {
    refuses_more_than_may_wait(Setup::Embedded).await;
}

#[tokio::test]
async fn waiting_images_per_user_are_limited_full() {
    refuses_more_than_may_wait(Setup::Full).await;
}
