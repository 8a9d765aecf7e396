//! Without RabbitMQ requests are accepted, and their jobs run after its return.

use std::time::{Duration, Instant};

use super::{Proxies, behind_proxies, eventually, readiness};
use crate::support::{Origin, TestApp, images};

async fn takes_products_in_and_does_the_work_later(app: &TestApp, proxies: &Proxies, leave: impl Fn()) {
    let origin = Origin::start().await;
    origin.serve("/a.png", "image/png", images::png(64, 48));
    let (stopper, worker) = app.start_worker().await;
    let before = app.create(&[origin.url("/a.png")]).await["id"].clone();
    assert_eq!(app.settled(&before).await["status"], "ready");
    assert_eq!(readiness(app).await, (200, vec![]));

    leave();
    eventually("a queue that is down", async || (readiness(app).await.1 == ["queue"]).then_some(())).await;
    assert_eq!(readiness(app).await.0, 200, "the server accepts requests without its broker");
    let mut ids = Vec::new();
    let began = Instant::now();
    for _ in 0..10 {
        ids.push(app.create(&[origin.url("/a.png"), origin.url("/status/404")]).await["id"].clone());
    }
    assert!(began.elapsed() < Duration::from_secs(3), "10 products took {:?}", began.elapsed());
    for id in &ids {
        assert_eq!(app.product(id).await["images"].as_array().map(Vec::len), Some(2));
    }

    proxies.rabbitmq.restore();
    let restored = Instant::now();
    for id in &ids {
        let product = app.settled(id).await;
        let shown = (&product["images"][0]["status"], &product["images"][1]["status"]);
        assert_eq!(shown, (&"ready".into(), &"failed".into()), "{product}");
        assert_eq!(product["images"][0]["attempts"], 1, "the outage used no attempt up");
    }
    assert!(restored.elapsed() < Duration::from_secs(20), "the work was done after {:?}", restored.elapsed());
    eventually("a queue that is up", async || readiness(app).await.1.is_empty().then_some(())).await;
    stopper.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn products_are_accepted_while_rabbitmq_is_down() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        takes_products_in_and_does_the_work_later(app, proxies, || proxies.rabbitmq.cut()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn products_are_accepted_while_rabbitmq_is_silent() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        takes_products_in_and_does_the_work_later(app, proxies, || proxies.rabbitmq.stall()).await;
    })
    .await;
}
