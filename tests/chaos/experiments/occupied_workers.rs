//! Workers stopped in the middle of their work: each is downloading images from an origin that does not answer yet, and
//! decoding one.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use futures_util::future::try_join_all;

use serde_json::json;

use crate::{
    api::{Api, product},
    images,
    origin::Origin,
    processes::Process,
    stage::Stage,
};

/// Images in progress in a worker with one decoder.
const SLOTS: usize = 4;

/// Workers with their jobs.
pub struct OccupiedWorkers {
    pub workers: Vec<Process>,
    /// The jobs' ids.
    pub jobs: BTreeSet<i64>,
    /// Number of images that are being decoded.
    pub decoding: i64,
    held: Vec<String>,
}

impl OccupiedWorkers {
    /// Starts `count` workers and queues as many images as they take; no other worker may run. `round` makes this
    /// call's images different from those of other calls.
    pub async fn start(stage: &Stage, api: &Api, origin: &Origin, round: usize, count: usize) -> anyhow::Result<Self> {
        let held: Vec<_> = (0..count * (SLOTS - 1)).map(|number| format!("/held/{round}/{number}.jpg")).collect();
        let large: Vec<_> = (0..count).map(|number| format!("/large/{round}/{number}.jpg")).collect();
        let serve = |path: &String, edge: u16| {
            origin.serve(path, "image/jpeg", images::numbered_jpeg(fastrand::u32(..), edge, edge / 2));
            origin.url(path)
        };
        held.iter().for_each(|path| origin.hold(path));
        let on_their_way: Vec<_> = held.iter().map(|path| serve(path, 96)).collect();
        let to_decode: Vec<_> = large.iter().map(|path| serve(path, 1_200)).collect();
        let names: Vec<_> = (0..count).map(|number| format!("occupied{number}")).collect();
        // From here on it must be quick: a download fails after 10 s without data.
        let workers = try_join_all(names.iter().map(|name| stage.worker(name, 1))).await?;
        api.create(&format!("held {round}"), &on_their_way).await?;
        // Of another user, since one user gets at most three quarters of a worker's permits.
        let mut large = product(&format!("large {round}"), &to_decode);
        large["user_id"] = json!("another seller");
        let answer = api.post("/products", &large).await?;
        anyhow::ensure!(answer.status == 201, "POST /products answers {}: {}", answer.status, answer.body);
        let mut occupied = Self { workers, jobs: BTreeSet::new(), decoding: 0, held };
        occupied.wait_for_work(stage, count).await?;
        Ok(occupied)
    }

    /// Waits until all images are in progress and one is being decoded, where that is visible.
    async fn wait_for_work(&mut self, stage: &Stage, count: usize) -> anyhow::Result<()> {
        let on_their_way = i64::try_from(count * (SLOTS - 1))?;
        let sql = "SELECT count(*) FROM jobs JOIN images ON images.id = jobs.image_id
            WHERE jobs.state = 'running' AND jobs.attempt = 1 AND images.source_url LIKE '%/held/%'";
        let waiting = async {
            while stage.number(sql).await? < on_their_way {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.context("the workers claimed no jobs")??;
        for _ in 0..100 {
            self.decoding = stage.number("SELECT count(*) FROM jobs WHERE state = 'running' AND decoding = 1").await?;
            if self.decoding > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.jobs = running(stage).await?;
        Ok(())
    }

    /// Drops the jobs that have ended by now; called once the workers can end none any more.
    pub async fn count(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let running = running(stage).await?;
        self.jobs.retain(|job| running.contains(job));
        anyhow::ensure!(!self.jobs.is_empty(), "the workers held no jobs");
        Ok(())
    }

    /// Freezes all workers, none during a transaction: on SQLite a frozen transaction would block every other writer.
    pub async fn freeze(&self, stage: &Stage) -> anyhow::Result<()> {
        const TRIES: u32 = 200;
        for _ in 0..TRIES {
            self.workers.iter().for_each(Process::freeze);
            let write = stage.execute("UPDATE jobs SET id = id WHERE id = 0");
            if tokio::time::timeout(Duration::from_millis(500), write).await.is_ok_and(|write| write.is_ok()) {
                return Ok(());
            }
            self.workers.iter().for_each(Process::thaw);
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        anyhow::bail!("the workers were inside a transaction {TRIES} times")
    }

    /// Lets the origin answer from now on.
    pub fn release(&self, origin: &Origin) {
        self.held.iter().for_each(|path| origin.release(path));
    }
}

/// Returns the jobs that a worker holds at their first attempt.
async fn running(stage: &Stage) -> anyhow::Result<BTreeSet<i64>> {
    let rows = stage.rows("SELECT id FROM jobs WHERE state = 'running' AND attempt = 1").await?;
    rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
}
