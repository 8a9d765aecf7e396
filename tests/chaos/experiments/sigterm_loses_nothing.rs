//! P16: SIGTERM loses nothing. A server stopped under load answers every request that reached it; a worker finishes
//! what it can and returns the other jobs without using up an attempt; both exit with the right code; a second signal
//! ends them at once.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    api::Api,
    engines::programs,
    images,
    ledger::Ledger,
    measurements::{Times, counts, milliseconds},
    origin::Origin,
    processes::Process,
    soundness::{self, Counts},
    stage::Stage,
};

/// Images in flight in a worker of two decoders.
const IN_FLIGHT: usize = 8;
const PACE: Duration = Duration::from_millis(10);
/// Time limit for a worker to return its jobs.
const WORKER_LIMIT: Duration = Duration::from_secs(15);

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let rounds = stage.size(1, 10);
    let mut counts = servers(stage, rounds).await?;
    let mut slowest = Times::default();
    for round in 0..rounds {
        slowest.note(worker(stage, round).await?);
    }
    second_signal(stage).await?;
    counts.insert("worker_ends_within_ms".to_owned(), milliseconds(slowest.longest()));
    // Another process must send the cache invalidations that the stopped ones could not.
    let mut last = stage.serve(&["--no-worker"]).await?;
    counts.extend(soundness::check(stage).await?);
    last.process.kill().await;
    Ok(counts)
}

/// The outcome of one request.
enum Fate {
    /// Answered as expected.
    Answered(Duration),
    /// The server refused new connections, so the request went to the other one.
    Moved,
    Failed(String),
}

/// Two servers share the load; the first is stopped and restarted again and again.
async fn servers(stage: &Stage, rounds: usize) -> anyhow::Result<Counts> {
    let other = ([127, 0, 0, 1], programs::spare_port()).into();
    let mut stays = stage.serve_at("stays", other, &["--no-worker"]).await?;
    let ledger = Ledger::default();
    let id = stays.api().create("read under load", &[]).await?["id"].as_i64().context("a number")?;
    let (mut answered, mut moved, mut slowest) = (Times::default(), 0, Times::default());
    for round in 0..rounds {
        let mut goes = stage.serve(&["--no-worker"]).await?;
        let (api, second) = (goes.api(), stays.api());
        let load = load((&api, &second), &ledger, (round, id), Duration::from_millis(1_600));
        let stop = async {
            sleep(Duration::from_millis(600)).await;
            let began = Instant::now();
            goes.process.terminate();
            let status = goes.process.ended(Duration::from_secs(15)).await?;
            anyhow::ensure!(status.code() == Some(0), "a server exited with {status} after SIGTERM");
            Ok(began.elapsed())
        };
        let (fates, stopped) = tokio::join!(load, stop);
        slowest.note(stopped?);
        for fate in fates {
            match fate {
                Fate::Answered(time) => answered.note(time),
                Fate::Moved => moved += 1,
                Fate::Failed(why) => anyhow::bail!("a request failed while the server stopped: {why}"),
            }
        }
    }
    anyhow::ensure!(moved > 0, "no request came after the server had stopped, so it was under no load");
    ledger.audit(stage, &stays.api()).await?.is_clean()?;
    stays.process.kill().await;
    Ok(counts(json!({
        "stops": rounds, "requests_answered": answered.len(), "requests_moved": moved, "requests_failed": 0,
        "slowest_answer_ms": milliseconds(answered.longest()), "server_ends_within_ms": milliseconds(slowest.longest()),
    })))
}

/// One request every 10 ms, every fourth creates a product; half use new connections.
async fn load(apis: (&Api, &Api), ledger: &Ledger, (round, id): (usize, i64), length: Duration) -> Vec<Fate> {
    let fresh = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
    let fresh = fresh.expect("a client without TLS roots needs nothing of the machine");
    let number = (length.as_millis() / PACE.as_millis()) as u32;
    let requests = (0..number).map(|number| {
        let fresh = &fresh;
        async move {
            sleep(PACE * number).await;
            let began = Instant::now();
            let name = format!("round {round} request {number}");
            let sent = |api: Api| async move {
                match number % 4 {
                    0 => ledger.create(&api, &name, &[]).await.map(|answer| (answer.status, 201)),
                    1 => fresh
                        .get(api.url(&format!("/products/{id}")))
                        .send()
                        .await
                        .map(|read| (read.status().as_u16(), 200)),
                    _ => api.get(&format!("/products/{id}")).await.map(|answer| (answer.status, 200)),
                }
            };
            match sent.clone()(apis.0.clone()).await {
                Ok((status, wanted)) if status == wanted => Fate::Answered(began.elapsed()),
                Err(error) if error.is_connect() => match sent(apis.1.clone()).await {
                    Ok((status, wanted)) if status == wanted => Fate::Moved,
                    other => Fate::Failed(format!("the other server: {other:?}")),
                },
                other => Fate::Failed(format!("{other:?}")),
            }
        }
    });
    join_all(requests).await
}

/// Stops a worker with images in flight while half of their origins never answer; returns the time it took.
async fn worker(stage: &Stage, round: usize) -> anyhow::Result<Duration> {
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let paths: Vec<_> = (0..IN_FLIGHT).map(|number| format!("/{round}-{number}.jpg")).collect();
    for (number, path) in paths.iter().enumerate() {
        let number = u32::try_from(round * IN_FLIGHT + number)?;
        origin.serve(path, "image/jpeg", images::numbered_jpeg(number, 320, 240));
        origin.hold(path);
        server.api().create(&format!("in flight {round} {number}"), &[origin.url(path)]).await?;
    }
    // One user gets at most three quarters of its permits.
    let mut worker = stage.worker("worker", 3).await?;
    join_all(paths.iter().map(|path| origin.wait_for_hits(path, 1))).await;
    let began = Instant::now();
    worker.terminate();
    // These end within the grace period, the others are returned.
    paths.iter().skip(IN_FLIGHT / 2).for_each(|path| origin.release(path));
    let status = worker.ended(WORKER_LIMIT).await?;
    let took = began.elapsed();
    anyhow::ensure!(status.code() == Some(0), "a worker exited with {status} after SIGTERM");
    let kept = stage.number("SELECT count(*) FROM jobs WHERE lease_token IS NOT NULL OR state = 'running'").await?;
    let burnt = stage.number("SELECT count(*) FROM jobs WHERE state = 'queued' AND attempt > 0").await?;
    let back = stage.number("SELECT count(*) FROM jobs WHERE state = 'queued'").await?;
    let half = i64::try_from(IN_FLIGHT / 2)?;
    let outcome = format!("{kept} kept, {burnt} given back with a burnt attempt, {back} given back");
    anyhow::ensure!((kept, burnt, back) == (0, 0, half), "after the stop: {outcome}");
    paths.iter().for_each(|path| origin.release(path));
    finish(stage, "worker-after").await?;
    server.process.kill().await;
    Ok(took)
}

/// Lets another worker do the rest.
async fn finish(stage: &Stage, name: &str) -> anyhow::Result<()> {
    let mut worker = stage.worker(name, 2).await?;
    stage.settled(Duration::from_secs(60)).await?;
    worker.kill().await;
    Ok(())
}

/// Sends a second signal, which ends a process that is still waiting for its work.
async fn second_signal(stage: &Stage) -> anyhow::Result<()> {
    let origin = Origin::start().await;
    origin.serve("/last.jpg", "image/jpeg", images::jpeg(64, 64));
    origin.hold("/last.jpg");
    let mut server = stage.serve(&["--workers", "1"]).await?;
    server.api().create("held", &[origin.url("/last.jpg")]).await?;
    origin.wait_for_hits("/last.jpg", 1).await;
    ends_at_once(&mut server.process).await?;
    origin.release("/last.jpg");
    finish(stage, "worker-last").await
}

async fn ends_at_once(process: &mut Process) -> anyhow::Result<()> {
    process.terminate();
    sleep(Duration::from_millis(500)).await;
    anyhow::ensure!(process.is_running(), "{} did not wait for its work", process.name());
    process.terminate();
    let status = process.ended(Duration::from_secs(2)).await.context("the second signal")?;
    anyhow::ensure!(status.code() == Some(130), "after the second signal {} exited with {status}", process.name());
    Ok(())
}
