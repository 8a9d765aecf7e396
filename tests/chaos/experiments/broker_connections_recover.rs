//! P6: workers and the relay always reconnect. The broker fails in every possible way, in random order; within 10 s of
//! its return it has one consumer for each worker, and images are processed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::traffic;
use crate::{
    engines::wait_until,
    faults::{self, Engine, Kind},
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
};

const WORKERS: u32 = 3;
/// Promised limit, from the moment the broker is up.
const LIMIT: Duration = Duration::from_secs(10);
/// A broker killed this soon after declaring a queue may forget all but its name; P5 tests that.
const FORGETFUL: Duration = Duration::from_secs(4);
const KINDS: &[(Engine, Kind)] = &[
    (Engine::RabbitMq, Kind::DropClients),
    (Engine::RabbitMq, Kind::Restart),
    (Engine::RabbitMq, Kind::Kill),
    (Engine::RabbitMq, Kind::Silence),
    (Engine::RabbitMq, Kind::Reset),
    (Engine::RabbitMq, Kind::Freeze),
];

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (count, longest) = (stage.size(4, 20), stage.size(Duration::from_secs(2), Duration::from_secs(15)));
    let proxies = stage.put_proxies().await;
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(stage.worker(&format!("worker{number}"), 1).await?);
    }
    all_consume(stage, LIMIT).await.context("before any fault")?;
    tokio::time::sleep(FORGETFUL).await;
    let mut slowest = Duration::ZERO;
    let faults = faults::mixed(&mut stage.random(6), KINDS, count, longest);
    for (number, fault) in faults.iter().enumerate() {
        traffic::queue_images(&server.api(), &origin, &format!("before {number}"), 5).await?;
        fault.happen(stage, Some(&proxies)).await?;
        let up = Instant::now();
        all_consume(stage, LIMIT).await.with_context(|| format!("after fault {number}, {fault:?}"))?;
        slowest = slowest.max(up.elapsed());
        traffic::queue_images(&server.api(), &origin, &format!("after {number}"), 5).await?;
    }
    stage.settled(Duration::from_secs(90)).await?;
    let mut counts = soundness::check(stage).await?;
    let failed = &counts["images_failed"];
    anyhow::ensure!(*failed == 0, "{failed} valid images failed");
    counts.insert("faults".into(), json!(count));
    counts.insert("workers".into(), json!(WORKERS));
    counts.insert("slowest_seconds".into(), json!((slowest.as_secs_f64() * 100.0).round() / 100.0));
    for worker in &mut workers {
        worker.kill().await;
    }
    server.process.kill().await;
    Ok(counts)
}

async fn all_consume(stage: &Stage, limit: Duration) -> anyhow::Result<()> {
    let broker = &stage.engines().rabbitmq;
    let queue = stage.queue_at_broker(&stage.queue()).await?;
    let mut last = None;
    let asking = wait_until("as many consumers as workers", limit, async || {
        last = broker.queue(&queue).await.ok();
        last.is_some_and(|queue| queue.consumers == WORKERS)
    });
    asking.await.with_context(|| format!("the broker reports: {last:?}"))
}
