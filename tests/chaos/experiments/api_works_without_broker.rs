//! P7: a broker that is down does not stop the API. Products are created at the usual rate while RabbitMQ is down, and
//! the waiting jobs are published soon after its return.

mod rights;

use std::time::{Duration, Instant};

use serde_json::json;

use super::traffic::{self, Pace};
use crate::{
    engines::wait_until,
    ledger::Ledger,
    origin::Origin,
    soundness::{self, Counts},
    stage::{Form, Stage},
};

/// Promised limit, from the moment the broker is back.
const LIMIT: Duration = Duration::from_secs(10);
/// In a short form the slowest of a hundred is chance: times below this are not compared.
const UNREMARKABLE: Duration = Duration::from_millis(100);

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let lasts = stage.size(Duration::from_secs(4), Duration::from_secs(60));
    let rabbitmq = &stage.engines().rabbitmq;
    let origin = Origin::start().await;
    let image = traffic::one_image(&origin);
    let mut server = stage.serve(&["--no-worker"]).await?;
    let api = server.api();
    let ledger = Ledger::default();
    let pace = |name| Pace { name, per_second: 25, lasts, images: vec![image.clone()] };
    // The first requests of a process take longer.
    traffic::post(&ledger, &api, &Pace { lasts: Duration::from_secs(1), ..pace("warm") }).await;
    let usual = traffic::post(&ledger, &api, &pace("usual")).await;
    rabbitmq.kill().await;
    let without = traffic::post(&ledger, &api, &pace("without")).await;
    rabbitmq.start().await?;
    let back = Instant::now();
    wait_until("the backlog is published", LIMIT, async || {
        let waiting = "SELECT count(*) FROM jobs WHERE state = 'queued' AND dispatched_at IS NULL";
        stage.number(waiting).await.is_ok_and(|waiting| waiting == 0)
    })
    .await?;
    let handed_over = back.elapsed().as_secs_f64();

    let tally = ledger.tally();
    anyhow::ensure!(tally.refused + tally.unanswered == 0, "not every POST was answered with 201: {tally:?}");
    let (before, after) = (usual.p99(), without.p99());
    let unremarkable = if stage.form == Form::Short { UNREMARKABLE } else { Duration::ZERO };
    anyhow::ensure!(
        after < (before * 2).max(unremarkable),
        "p99 of POST is {after:?} without the broker, {before:?} with it"
    );
    let mut worker = stage.worker("worker", 2).await?;
    stage.settled(Duration::from_secs(300)).await?;
    ledger.audit(stage, &api).await?.is_clean()?;
    let mut counts = soundness::check(stage).await?;
    counts.insert("posted_without_broker".into(), json!(without.count()));
    counts.insert("p99_ms_usual".into(), json!(before.as_micros() as f64 / 1e3));
    counts.insert("p99_ms_without_broker".into(), json!(after.as_micros() as f64 / 1e3));
    counts.insert("seconds_to_hand_over".into(), json!((handed_over * 100.0).round() / 100.0));
    worker.kill().await;
    server.process.kill().await;
    counts.extend(rights::run(stage).await?);
    Ok(counts)
}
