//! P1: no accepted image is lost, none ends twice. Pictures are queued for three workers, of which a random one is killed
//! again and again; at the end every picture is ready, with the renditions that a run without faults makes of it.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::{
    api::Api,
    ledger::Ledger,
    logs,
    origin::Origin,
    pictures,
    processes::Process,
    soundness::{self, Counts},
    stage::Stage,
};

const WORKERS: usize = 3;
/// A product has as many pictures.
const PICTURES: usize = 5;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (images, kills) = (stage.size(40, 2_000), stage.size(3, 50));
    let origin = Origin::start().await;
    let addresses: Vec<_> = (0..images).map(|number| draw(&origin, number)).collect();
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(stage.worker(&format!("worker{number}"), 2).await?);
    }
    let ledger = Ledger::default();
    let api = server.api();
    let (queued, killed) =
        tokio::join!(queue(&ledger, &api, &addresses), kill_at_random(stage, &mut workers, (images, kills)));
    queued?;
    killed?;
    stage.settled(Duration::from_secs(60) + Duration::from_millis(100) * u32::try_from(images)?).await?;

    ledger.audit(stage, &api).await?.is_clean()?;
    let mut counts = soundness::check(stage).await?;
    anyhow::ensure!(counts["images_ready"] == json!(images), "{counts:?} instead of {images} ready images");
    let ends = ends(&workers);
    anyhow::ensure!(ends <= images, "{ends} times an image became ready, and there are only {images}");
    let second = "SELECT count(*) FROM jobs WHERE attempt > 1";
    counts.insert("images_claimed_again".to_owned(), json!(stage.number(second).await?));
    as_without_faults(stage).await?;
    counts.insert("images".to_owned(), json!(images));
    counts.insert("kills".to_owned(), json!(kills));
    for worker in &mut workers {
        worker.kill().await;
    }
    server.process.kill().await;
    Ok(counts)
}

fn draw(origin: &Origin, number: usize) -> String {
    let path = format!("/{number}.jpg");
    origin.serve(&path, "image/jpeg", pictures::numbered_jpeg(u32::try_from(number).unwrap_or(0), 96, 64));
    origin.url(&path)
}

async fn queue(ledger: &Ledger, api: &Api, addresses: &[String]) -> anyhow::Result<()> {
    let products = addresses.chunks(PICTURES).enumerate();
    let requests = products.map(|(number, images)| async move {
        let answer = ledger.create(api, &format!("product {number}"), images).await?;
        anyhow::ensure!(answer.status == 201, "POST /products answers {}: {}", answer.status, answer.body);
        Ok(())
    });
    stream::iter(requests).buffer_unordered(8).try_collect().await
}

/// Kills a random worker again and again while there is work, each time in the midst of it, and starts it anew.
async fn kill_at_random(stage: &Stage, workers: &mut [Process], (images, kills): (usize, usize)) -> anyhow::Result<()> {
    let mut random = stage.random(1);
    for kill in 0..kills {
        // The kills are spread over the work: after the first, the second … part of the images has ended.
        let ended = i64::try_from(images * kill / (kills + 1))?;
        let number = random.usize(..workers.len());
        stage.works(&mut workers[number]).await?;
        progress(stage, ended).await?;
        tokio::time::sleep(Duration::from_millis(random.u64(0..50))).await;
        // Every second time only the process itself: what it has started must notice and end by itself.
        if random.bool() {
            workers[number].kill().await
        } else {
            workers[number].kill_alone().await
        }
        // The others go on meanwhile.
        workers[number] = stage.start_worker(&format!("worker{number}"), 2)?;
    }
    Ok(())
}

/// Waits until this many images have ended and others have begun.
async fn progress(stage: &Stage, ended: i64) -> anyhow::Result<()> {
    let waiting = async {
        loop {
            let done = stage.number("SELECT count(*) FROM jobs WHERE state = 'done'").await?;
            let running = stage.number("SELECT count(*) FROM jobs WHERE state = 'running'").await?;
            if done >= ended && running > 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.context("there was no work left to be killed in")?
}

/// How often the workers' logs say that an image became ready.
fn ends(workers: &[Process]) -> usize {
    let logs = workers.iter().map(|worker| std::fs::read_to_string(worker.log()).unwrap_or_default());
    logs.map(|log| logs::attempts(&log, "ready")).sum()
}

/// Lets all images be made anew without any faults, and compares: content is named by its hash.
async fn as_without_faults(stage: &Stage) -> anyhow::Result<()> {
    let with_faults = soundness::renditions(stage).await?;
    stage.pm(&["reprocess", "--status", "all", "--yes"]).await?;
    stage.settled(Duration::from_secs(600)).await?;
    let without = soundness::renditions(stage).await?;
    anyhow::ensure!(with_faults == without, "renditions differ from those of a run without faults");
    Ok(())
}
