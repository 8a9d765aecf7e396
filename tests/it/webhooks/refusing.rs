//! Webhooks that refuse connections: they cost a few attempts and delay no other webhook.

use std::time::{Duration, Instant};

use pm::catalog::Posted;
use serde_json::{Value, json};

use super::{let_messages_be_due, webhook};
use crate::{
    api::wire,
    support::{TestApp, on_both_setups, receiver::Receiver},
};

/// Failed attempts in a row after which a webhook is paused.
const FAILURES: i64 = 5;
/// Attempts in flight when the last of those fails.
const UNDER_WAY: i64 = 4;
/// One attempt is made in each pause.
const PAUSE: Duration = Duration::from_secs(10);

/// Queues this many deliveries for a webhook.
async fn queue_messages(app: &TestApp, webhook: &Value, count: u32) {
    let now = pm::clock::Timestamp::now().0;
    app.sql(&format!(
        "INSERT INTO webhook_deliveries
             (webhook_id, message_id, kind, body, state, attempt, run_at, created_at, updated_at)
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
         SELECT {}, 'evt_' || n, 'product.created', '{{}}', 'queued', 0, {now}, {now}, {now} FROM numbers",
        webhook["id"],
    ))
    .await;
}

/// Returns the sum of attempts of a webhook's deliveries.
async fn attempts(app: &TestApp, webhook: &Value) -> i64 {
    use sea_orm::ConnectionTrait as _;
    let connection = app.app.database.read();
    let sql = format!(
        "SELECT CAST(coalesce(sum(attempt), 0) AS BIGINT) AS attempts FROM webhook_deliveries WHERE webhook_id = {}",
        webhook["id"]
    );
    let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get("", "attempts").unwrap()
}

/// Creates a webhook at a closed port of this machine.
async fn refusing_webhook(app: &TestApp) -> Value {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    drop(listener);
    let answer = wire::post(app, "/webhooks", json!({"url": url}).to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn refused() -> Posted {
    Posted::Refused { status: None, reason: "the connection was refused".into(), retry_after: None }
}

on_both_setups! {
    async fn a_webhook_that_refuses_connections_is_paused_and_delays_no_other(app: &TestApp) {
        let receiver = Receiver::start().await;
        let refusing = refusing_webhook(app).await;
        let healthy = webhook(app, &receiver, &[]).await;
        queue_messages(app, &refusing, 10_000).await;
        queue_messages(app, &healthy, 300).await;
        let begun = Instant::now();
        // Two processes share the pause.
        let (first, second) = (app.start_worker().await, app.start_worker().await);
        receiver.wait_for(300).await;
        for (stopper, worker) in [first, second] {
            stopper.cancel();
            worker.await.unwrap();
        }
        let pauses = i64::try_from(begun.elapsed().as_secs() / PAUSE.as_secs()).unwrap() + 1;
        let made = attempts(app, &refusing).await;
        let most = FAILURES + UNDER_WAY + pauses;
        assert!((FAILURES..=most).contains(&made), "{made} attempts in {:?}; at most {most} expected", begun.elapsed());
    }

    async fn a_paused_webhook_gets_one_attempt_per_pause_until_success(app: &TestApp) {
        let receiver = Receiver::start().await;
        let made = webhook(app, &receiver, &[]).await;
        queue_messages(app, &made, 40).await;
        for _ in 0..FAILURES {
            let claimed = app.app.catalog.claim_deliveries(1).await.unwrap().pop().expect("it is not paused yet");
            app.app.catalog.settle_delivery(claimed, refused()).await.unwrap();
        }
        assert!(app.app.catalog.claim_deliveries(64).await.unwrap().is_empty(), "it is paused");
        let other_process = app.another().await;
        assert!(other_process.catalog.claim_deliveries(64).await.unwrap().is_empty(), "for every process");

        let_messages_be_due(app).await;
        let probe = app.app.catalog.claim_deliveries(64).await.unwrap().pop().expect("the pause is over");
        assert!(other_process.catalog.claim_deliveries(64).await.unwrap().is_empty(), "one attempt a pause");
        app.app.catalog.settle_delivery(probe, refused()).await.unwrap();
        assert!(app.app.catalog.claim_deliveries(64).await.unwrap().is_empty(), "it failed, so the pause continues");

        let_messages_be_due(app).await;
        let probe = app.app.catalog.claim_deliveries(64).await.unwrap().pop().expect("the pause is over");
        app.app.catalog.settle_delivery(probe, Posted::Accepted { status: 204 }).await.unwrap();
        for _ in 0..UNDER_WAY {
            assert_eq!(app.app.catalog.claim_deliveries(64).await.unwrap().len(), 1, "it accepts deliveries again");
        }
    }
}
