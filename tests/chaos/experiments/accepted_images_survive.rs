//! P1: no accepted image is lost or finished twice. Images are queued for three workers; a random one is killed again
//! and again. At the end every image is ready, with the same renditions as a run without faults.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::{
    api::Api,
    images,
    ledger::Ledger,
    logs,
    origin::Origin,
    processes::Process,
    soundness::{self, Counts},
    stage::Stage,
};

const WORKERS: usize = 3;
/// Number of images of a product.
const IMAGES: usize = 5;

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
    anyhow::ensure!(ends <= images, "images became ready {ends} times, but there are only {images}");
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
    origin.serve(&path, "image/jpeg", images::numbered_jpeg(u32::try_from(number).unwrap_or(0), 96, 64));
    origin.url(&path)
}

async fn queue(ledger: &Ledger, api: &Api, addresses: &[String]) -> anyhow::Result<()> {
    let products = addresses.chunks(IMAGES).enumerate();
    let requests = products.map(|(number, images)| async move {
        let answer = ledger.create(api, &format!("product {number}"), images).await?;
        anyhow::ensure!(answer.status == 201, "POST /products answers {}: {}", answer.status, answer.body);
        Ok(())
    });
    stream::iter(requests).buffer_unordered(8).try_collect().await
}

/// Kills a random worker again and again during its work, and restarts it.
async fn kill_at_random(stage: &Stage, workers: &mut [Process], (images, kills): (usize, usize)) -> anyhow::Result<()> {
    let mut random = stage.random(1);
    for kill in 0..kills {
        // The kills are spread over the work: after the first, the second … share of the images has ended.
        let ended = i64::try_from(images * kill / (kills + 1))?;
        let number = random.usize(..workers.len());
        stage.works(&mut workers[number]).await?;
        progress(stage, ended).await?;
        tokio::time::sleep(Duration::from_millis(random.u64(0..50))).await;
        // Every second time only the process itself is killed: its child processes must notice and exit.
        if random.bool() {
            workers[number].kill().await
        } else {
            workers[number].kill_alone().await
        }
        // The other workers continue meanwhile.
        workers[number] = stage.start_worker(&format!("worker{number}"), 2)?;
    }
    Ok(())
}

/// Waits until this many images have ended and others have started.
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
    tokio::time::timeout(Duration::from_secs(120), waiting)
        .await
        .context("no work was left during which to kill a worker")?
}

/// Counts the lines in the workers' logs that say that an image became ready.
fn ends(workers: &[Process]) -> usize {
    let logs = workers.iter().map(|worker| std::fs::read_to_string(worker.log()).unwrap_or_default());
    logs.map(|log| logs::attempts(&log, "ready")).sum()
}

/// Makes all images again without faults, and compares the renditions' hashes.
async fn as_without_faults(stage: &Stage) -> anyhow::Result<()> {
    let with_faults = soundness::renditions(stage).await?;
    stage.pm(&["reprocess", "--status", "all", "--yes"]).await?;
    stage.settled(Duration::from_secs(600)).await?;
    let without = soundness::renditions(stage).await?;
    anyhow::ensure!(with_faults == without, "renditions differ from those of a run without faults");
    Ok(())
}
