//! Real consumers: how they get jobs, and what they leave when they stop.

use std::time::{Duration, Instant};

use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

on_both_setups! {
    async fn consumers_process_images(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(300, 200));
        let (first, first_running) = app.start_worker().await;
        let (second, second_running) = app.start_worker().await;
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(app.create(&[origin.url("/a.jpg"), origin.url("/status/404")]).await["id"].clone());
        }
        for id in &ids {
            let product = app.settled(id).await;
            assert_eq!(product["images"][0]["status"], "ready");
            assert_eq!(product["images"][1]["status"], "failed");
            assert_eq!(product["images"][0]["attempts"], 1, "each image is worked on once");
        }
        first.cancel();
        second.cancel();
        first_running.await.unwrap();
        second_running.await.unwrap();
        let depth = app.app.catalog.depth().await.unwrap();
        assert_eq!((depth.queued, depth.running, depth.dead), (0, 0, 10));
    }

    async fn a_stopping_worker_finishes_its_jobs(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/slow.jpg", "image/jpeg", images::jpeg(64, 64));
        origin.hold("/slow.jpg");
        let (stopper, running) = app.start_worker().await;
        let id = app.create(&[origin.url("/slow.jpg")]).await["id"].clone();
        origin.wait_for_hits("/slow.jpg", 1).await;
        stopper.cancel();
        origin.release("/slow.jpg");
        tokio::time::timeout(Duration::from_secs(20), running).await.expect("it stops on request").unwrap();
        assert_eq!(app.product(&id).await["status"], "ready");
    }
}

/// Removes the message of the only job; returns how often it was queued.
async fn purge_message(app: &TestApp) -> u32 {
    let queue = format!("{}.{}", app.environment["PM_RABBITMQ_QUEUE"], app.app.catalog.installation());
    let url = app.environment["RABBITMQ_URL"].as_str();
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for _ in 0..500 {
        let options = lapin::options::QueuePurgeOptions::default();
        let purged = channel.queue_purge(queue.as_str().into(), options).await.unwrap_or(0);
        if purged > 0 {
            return purged;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_lost_by_the_broker_are_republished() {
    app::run(Setup::Full, async |app: &TestApp| {
        app.create(&["https://example.com/a.jpg".to_owned()]).await;
        assert_eq!(purge_message(app).await, 1, "the relay had published the job");
        app.sql("UPDATE jobs SET dispatched_at = 1 WHERE state = 'queued'").await;
        assert_eq!(purge_message(app).await, 1, "it is published again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_finds_a_job_whose_message_another_worker_has_consumed() {
    app::run(Setup::Full, async |app: &TestApp| {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let (stopper, running) = app.start_worker().await;
        origin.hold("/a.jpg");
        app.create(&[origin.url("/a.jpg")]).await;
        origin.wait_for_hits("/a.jpg", 1).await;
        // A worker with enough jobs of a user consumes messages without claiming a job, as this does.
        app.sql("UPDATE jobs SET state = 'queued', lease_token = NULL, lease_until = NULL, attempt = 0").await;
        let began = Instant::now();
        origin.wait_for_hits("/a.jpg", 2).await;
        let took = began.elapsed();
        origin.release("/a.jpg");
        stopper.cancel();
        running.await.unwrap();
        assert!(took < Duration::from_secs(8), "it was found after {took:?}");
    })
    .await;
}
