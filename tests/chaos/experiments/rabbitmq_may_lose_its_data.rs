//! P5: RabbitMQ may lose everything. Its data are deleted while jobs are queued; the database still has them, so all
//! end soon after its return. The full form also kills RabbitMQ right after it has declared a queue; it may then
//! remember only the queue's name.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::traffic;
use crate::{
    engines::wait_until,
    origin::Origin,
    soundness::{self, Counts},
    stage::{Form, Stage},
};

/// Promised limit, from the moment the broker is back.
const LIMIT: Duration = Duration::from_secs(60);

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let jobs: u32 = stage.size(40, 1_000);
    let rabbitmq = &stage.engines().rabbitmq;
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    traffic::queue_images(&server.api(), &origin, "lost", jobs).await?;
    let queue = stage.queue_at_broker(&stage.queue()).await?;
    wait_until("all jobs are published", LIMIT, async || {
        rabbitmq.queue(&queue).await.is_ok_and(|queue| queue.ready == jobs)
    })
    .await?;

    let mut workers = Vec::new();
    rabbitmq.kill().await;
    rabbitmq.wipe().await?;
    for number in 0..2 {
        workers.push(stage.worker(&format!("worker{number}"), 2).await?);
    }
    let done_without = stage.number("SELECT count(*) FROM jobs WHERE state = 'done'").await?;
    anyhow::ensure!(done_without == 0, "{done_without} jobs ended without the broker, so nothing is proved");
    rabbitmq.start().await?;
    let back = Instant::now();
    stage.settled(LIMIT).await?;
    let seconds = back.elapsed().as_secs_f64();

    let mut counts = soundness::check(stage).await?;
    anyhow::ensure!(counts["images_ready"] == json!(jobs), "{counts:?} instead of {jobs} ready images");
    counts.insert("jobs".into(), json!(jobs));
    counts.insert("seconds_until_all_ended".into(), json!((seconds * 10.0).round() / 10.0));
    for worker in &mut workers {
        worker.kill().await;
    }
    server.process.kill().await;
    if stage.form == Form::Full {
        let replaced = killed_right_after_a_queue_was_made(stage, &origin).await?;
        counts.insert("queues_replaced".into(), json!(replaced));
    }
    Ok(counts)
}

/// Returns how often the program had to declare a queue again.
async fn killed_right_after_a_queue_was_made(stage: &Stage, origin: &Origin) -> anyhow::Result<usize> {
    const TIMES: usize = 3;
    let rabbitmq = &stage.engines().rabbitmq;
    let mut replaced = 0;
    for time in 0..TIMES {
        let queue = format!("{}.{time}", stage.queue());
        stage.configure("PM_RABBITMQ_QUEUE", queue.as_str());
        let queue = stage.queue_at_broker(&queue).await?;
        let mut server = stage.serve(&["--workers", "1"]).await?;
        wait_until("the queue has its consumer", LIMIT, async || {
            rabbitmq.queue(&queue).await.is_ok_and(|queue| queue.consumers == 1)
        })
        .await?;
        rabbitmq.kill().await;
        traffic::queue_images(&server.api(), origin, &format!("new {time}"), 5).await?;
        rabbitmq.start().await?;
        stage.settled(LIMIT).await.with_context(|| format!("a queue made just before a kill, time {time}"))?;
        soundness::check(stage).await?;
        replaced += usize::from(server.process.output().contains("deleting and declaring it again"));
        server.process.kill().await;
    }
    Ok(replaced)
}
