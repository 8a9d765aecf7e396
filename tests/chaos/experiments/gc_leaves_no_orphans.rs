//! P19: no orphaned blob, no dangling reference. Products are created, reprocessed and deleted while workers are
//! killed; afterwards `pm gc` leaves exactly the referenced blobs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    api::Api,
    images,
    measurements::counts,
    origin::Origin,
    processes::Process,
    soundness::{self, Counts},
    stage::Stage,
};

const CLIENTS: usize = 4;

/// State that the clients share.
struct Scene<'a> {
    stage: &'a Stage,
    api: Api,
    origin: Origin,
    ids: Mutex<Vec<i64>>,
    until: Instant,
    made: AtomicUsize,
    deleted: AtomicUsize,
    rerun: AtomicUsize,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let length = stage.size(Duration::from_secs(5), Duration::from_secs(120));
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut workers = vec![stage.worker("worker0", 1).await?, stage.worker("worker1", 1).await?];
    let scene = Scene {
        stage,
        api: server.api(),
        origin: Origin::start().await,
        ids: Mutex::default(),
        until: Instant::now() + length,
        made: AtomicUsize::new(0),
        deleted: AtomicUsize::new(0),
        rerun: AtomicUsize::new(0),
    };
    let clients = try_join_all((0..CLIENTS).map(|number| scene.client(number as u64)));
    let (_, kills, collected) = tokio::try_join!(clients, scene.kill(&mut workers), scene.collect_meanwhile())?;
    stage.settled(Duration::from_secs(120)).await?;

    let blobs = stage.directory.join("data/blobs");
    let unreferenced = files(&blobs)?.difference(&referred(stage).await?).count();
    // Blobs have a grace time; this makes them look older.
    age(&blobs)?;
    let gone = collect(stage).await?;
    let (left, needed) = (files(&blobs)?, referred(stage).await?);
    let orphans: Vec<_> = left.difference(&needed).take(3).collect();
    let missing: Vec<_> = needed.difference(&left).take(3).collect();
    anyhow::ensure!(orphans.is_empty(), "orphans after pm gc, such as {orphans:?}");
    anyhow::ensure!(missing.is_empty(), "pm gc removed referenced blobs, such as {missing:?}");
    let again = collect(stage).await?;
    anyhow::ensure!(again == 0, "a second pm gc removed {again} more");
    let mut counts = counts(json!({
        "made": scene.made.load(Relaxed), "deleted": scene.deleted.load(Relaxed), "worked_on_again": scene.rerun.load(Relaxed),
        "kills": kills, "collections_meanwhile": collected, "unreferenced_before": unreferenced, "removed": gone,
        "blobs_left": left.len(), "orphans": 0, "missing": 0,
    }));
    counts.extend(soundness::check(stage).await?);
    for worker in &mut workers {
        worker.kill().await;
    }
    server.process.kill().await;
    Ok(counts)
}

impl Scene<'_> {
    async fn client(&self, number: u64) -> anyhow::Result<()> {
        let mut random = self.stage.random(100 + number);
        while Instant::now() < self.until {
            match random.u8(..10) {
                0..5 => self.create(&mut random).await?,
                5..8 => self.delete(&mut random).await?,
                _ => self.work_again(&mut random).await?,
            }
            sleep(Duration::from_millis(random.u64(..100))).await;
        }
        Ok(())
    }

    /// A product that shares some images with others, so that blobs are shared.
    async fn create(&self, random: &mut fastrand::Rng) -> anyhow::Result<()> {
        let images: Vec<_> = (0..random.usize(1..3)).map(|_| self.image(random.u32(..80))).collect();
        let made = self.made.fetch_add(1, Relaxed);
        let id = self.api.create(&format!("product {made}"), &images).await?["id"].as_i64().context("a number")?;
        self.ids.lock().await.push(id);
        Ok(())
    }

    fn image(&self, number: u32) -> String {
        let path = format!("/{number}.jpg");
        self.origin.serve(&path, "image/jpeg", images::numbered_jpeg(number, 96, 64));
        self.origin.url(&path)
    }

    async fn delete(&self, random: &mut fastrand::Rng) -> anyhow::Result<()> {
        let id = {
            let mut ids = self.ids.lock().await;
            if ids.is_empty() {
                return Ok(());
            }
            let place = random.usize(..ids.len());
            ids.swap_remove(place)
        };
        let answer = self.api.client().delete(self.api.url(&format!("/products/{id}"))).send().await?;
        anyhow::ensure!(answer.status() == 204, "DELETE /products/{id} answers {}", answer.status());
        let read = self.api.get(&format!("/products/{id}")).await?;
        anyhow::ensure!(read.status == 404, "the deleted product {id} is answered {}: {}", read.status, read.body);
        self.deleted.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn work_again(&self, random: &mut fastrand::Rng) -> anyhow::Result<()> {
        let Some(id) = random.choice(self.ids.lock().await.iter().copied()) else { return Ok(()) };
        // Another client may have deleted it meanwhile; that is no failure.
        let output = self
            .stage
            .spec("pm")
            .arguments(["reprocess", "--product", &id.to_string(), "--status", "all", "--yes"])
            .run(Duration::from_secs(60))
            .await?;
        self.rerun.fetch_add(usize::from(output.status.success()), Relaxed);
        Ok(())
    }

    async fn kill(&self, workers: &mut [Process]) -> anyhow::Result<usize> {
        let mut random = self.stage.random(1);
        let mut kills = 0;
        while Instant::now() < self.until {
            sleep(Duration::from_millis(random.u64(300..1_500))).await;
            let place = random.usize(..workers.len());
            workers[place].kill().await;
            workers[place] = self.stage.worker(&format!("worker{place}"), 1).await?;
            kills += 1;
        }
        Ok(kills)
    }

    /// Runs `pm gc` beside everything else: it must not remove a blob that is about to be referenced.
    async fn collect_meanwhile(&self) -> anyhow::Result<usize> {
        let mut collections = 0;
        while Instant::now() + Duration::from_secs(1) < self.until {
            sleep(Duration::from_secs(1)).await;
            collect(self.stage).await?;
            collections += 1;
        }
        Ok(collections)
    }
}

/// Returns the number of blobs that `pm gc` removes.
async fn collect(stage: &Stage) -> anyhow::Result<u64> {
    let text: Value = serde_json::from_str(&stage.pm(&["gc", "--output", "json"]).await?)?;
    text["removed"].as_u64().with_context(|| format!("pm gc printed {text}"))
}

/// Returns the blobs that rows reference.
async fn referred(stage: &Stage) -> anyhow::Result<BTreeSet<String>> {
    let sql = "SELECT blob_key FROM renditions UNION SELECT source_key FROM images WHERE source_key IS NOT NULL";
    stage.rows(sql).await?.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
}

/// The file that names the store's owner.
const MARKER: &str = "installation.json";

/// Returns all blobs of the store, by their keys.
fn files(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let names = walk(directory)?.into_iter().filter_map(|path| {
        let name = path.strip_prefix(directory).ok()?.display().to_string();
        // The store's own files start with a dot; partial files contain `#`.
        (!name.starts_with('.') && !name.contains('#') && name != MARKER).then_some(name)
    });
    Ok(names.collect())
}

fn age(directory: &Path) -> anyhow::Result<()> {
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3_600);
    for path in walk(directory)? {
        std::fs::File::options().append(true).open(path)?.set_modified(long_ago)?;
    }
    Ok(())
}

fn walk(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { files.extend(walk(&entry.path())?) } else { files.push(entry.path()) }
    }
    Ok(files)
}
