//! P3: a frozen worker cannot overwrite. Workers are frozen during their work for longer than their leases; they resume
//! after another worker has finished, and no stored data may change any more.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::occupied_workers::OccupiedWorkers;
use crate::{
    logs,
    origin::Origin,
    processes::Process,
    soundness::{self, Counts},
    stage::Stage,
};

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (rounds, at_a_time) = (stage.size(1, 10), stage.size(2, 5));
    // The short form resumes as soon as the others are done, which takes one lease.
    let frozen_for = stage.size(Duration::ZERO, pm::db::jobs::LEASE * 3);
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let (mut jobs, mut decoding, mut lost) = (0, 0, 0);
    for round in 0..rounds {
        let mut occupied = OccupiedWorkers::start(stage, &server.api(), &origin, round, at_a_time).await?;
        let frozen = Instant::now();
        occupied.freeze(stage).await?;
        // Statements that were already sent to the database have arrived by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        occupied.count(stage).await?;
        occupied.release(&origin);
        let mut rescuer = stage.worker("rescuer", at_a_time).await?;
        stage.settled(Duration::from_secs(180)).await?;
        tokio::time::sleep(frozen_for.saturating_sub(frozen.elapsed())).await;
        let before = stored(stage).await?;
        occupied.workers.iter().for_each(Process::thaw);
        lost += every_job_is_noticed_as_lost(&occupied).await?;
        let after = stored(stage).await?;
        anyhow::ensure!(before == after, "a late write: {before:?} became {after:?}");
        jobs += occupied.jobs.len();
        decoding += occupied.decoding;
        for worker in &mut occupied.workers {
            worker.kill().await;
        }
        rescuer.kill().await;
    }
    let mut counts = soundness::check(stage).await?;
    let failed = &counts["images_failed"];
    anyhow::ensure!(*failed == 0, "{failed} valid images failed");
    server.process.kill().await;
    counts.insert("freezes".into(), json!(rounds * at_a_time));
    counts.insert("jobs_in_hand".into(), json!(jobs));
    counts.insert("decoding_when_frozen".into(), json!(decoding));
    counts.insert("noticed_as_lost".into(), json!(lost));
    counts.insert("late_writes".into(), json!(0));
    Ok(counts)
}

/// Returns everything that a late write would change, in order.
async fn stored(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let queries = [
        "SELECT CAST(id AS TEXT), state || ' ' || attempt || ' ' || updated_at FROM jobs ORDER BY id",
        "SELECT CAST(id AS TEXT), status || ' ' || attempts || ' ' || updated_at FROM images ORDER BY id",
        "SELECT CAST(id AS TEXT), status || ' ' || version || ' ' || updated_at FROM products ORDER BY id",
        "SELECT CAST(id AS TEXT), image_id || ' ' || preset || ' ' || blob_key FROM renditions ORDER BY id",
    ];
    let mut all = Vec::new();
    for sql in queries {
        for row in stage.rows(sql).await? {
            let (id, rest): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            all.push(format!("{id} {rest}"));
        }
    }
    Ok(all)
}

/// Waits until the frozen workers have ended all their jobs, and found that the jobs belong to others; returns their
/// number.
async fn every_job_is_noticed_as_lost(occupied: &OccupiedWorkers) -> anyhow::Result<usize> {
    let waiting = async {
        loop {
            let lost = occupied.workers.iter().map(|worker| logs::attempts(&worker.output(), "lost")).sum();
            if lost >= occupied.jobs.len() {
                return lost;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .context("the frozen workers did not notice that other workers own their jobs")
}
