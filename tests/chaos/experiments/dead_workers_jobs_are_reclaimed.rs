//! P2: another worker claims a dead worker's image within 20 s. Workers are killed while they download and decode; the
//! result is the longest time from a kill to another worker's claim.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::json;

use super::occupied_workers::OccupiedWorkers;
use crate::{
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
};

/// The promised limit.
const LIMIT: Duration = Duration::from_secs(20);

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (rounds, at_a_time) = (stage.size(1, 20), stage.size(2, 5));
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut random = stage.random(2);
    let (mut longest, mut jobs, mut decoding) = (Duration::ZERO, 0, 0);
    for round in 0..rounds {
        let mut occupied = OccupiedWorkers::start(stage, &server.api(), &origin, round, at_a_time).await?;
        // With enough free permits for all: the promise does not cover time spent waiting for a free worker.
        let mut rescuer = stage.worker("rescuer", at_a_time * 2).await?;
        let killed = Instant::now();
        for worker in &mut occupied.workers {
            // Half of them alone: their child processes must notice and exit.
            if random.bool() { worker.kill().await } else { worker.kill_alone().await }
        }
        occupied.count(stage).await?;
        occupied.release(&origin);
        longest = longest.max(last_claim(stage, &occupied.jobs, killed).await?);
        jobs += occupied.jobs.len();
        decoding += occupied.decoding;
        stage.settled(Duration::from_secs(120)).await?;
        rescuer.kill().await;
    }
    let mut counts = soundness::check(stage).await?;
    let failed = &counts["images_failed"];
    anyhow::ensure!(*failed == 0, "{failed} valid images failed");
    server.process.kill().await;
    counts.insert("kills".into(), json!(rounds * at_a_time));
    counts.insert("jobs_in_hand".into(), json!(jobs));
    counts.insert("decoding_when_killed".into(), json!(decoding));
    counts.insert("lease_seconds".into(), json!(pm::db::jobs::LEASE.as_secs()));
    counts.insert("longest_seconds_to_claim".into(), json!((longest.as_secs_f64() * 100.0).round() / 100.0));
    Ok(counts)
}

/// Returns the time from `killed` until another worker had claimed the last of `jobs`.
async fn last_claim(stage: &Stage, jobs: &BTreeSet<i64>, killed: Instant) -> anyhow::Result<Duration> {
    let mut left = jobs.clone();
    loop {
        for row in stage.rows("SELECT id FROM jobs WHERE attempt > 1").await? {
            left.remove(&row.try_get_by_index::<i64>(0)?);
        }
        let elapsed = killed.elapsed();
        if left.is_empty() {
            return Ok(elapsed);
        }
        anyhow::ensure!(elapsed <= LIMIT, "jobs {left:?} were not claimed again within {LIMIT:?} of the kill");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
