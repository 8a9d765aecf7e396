//! Workers that are caught in the midst of their work: each has pictures on their way from an origin that does not answer
//! yet, and one that is being decoded.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use futures_util::future::try_join_all;

use serde_json::json;

use crate::{
    api::{Api, product},
    origin::Origin,
    pictures,
    processes::Process,
    stage::Stage,
};

/// Pictures that a worker with one decoder has at a time.
const SLOTS: usize = 4;

/// Workers, and the jobs that they have.
pub struct Hostages {
    pub workers: Vec<Process>,
    /// The jobs, by number.
    pub jobs: BTreeSet<i64>,
    /// How many of them are at the decoding.
    pub decoding: i64,
    held: Vec<String>,
}

impl Hostages {
    /// Starts `count` workers and queues as many pictures as they take; nobody else may be working. `round` tells this
    /// call from others of the same experiment.
    ///
    /// # Errors
    /// If they do not take them up.
    pub async fn take(stage: &Stage, api: &Api, origin: &Origin, round: usize, count: usize) -> anyhow::Result<Self> {
        let held: Vec<_> = (0..count * (SLOTS - 1)).map(|number| format!("/held/{round}/{number}.jpg")).collect();
        let large: Vec<_> = (0..count).map(|number| format!("/large/{round}/{number}.jpg")).collect();
        let serve = |path: &String, edge: u16| {
            origin.serve(path, "image/jpeg", pictures::numbered_jpeg(fastrand::u32(..), edge, edge / 2));
            origin.url(path)
        };
        held.iter().for_each(|path| origin.hold(path));
        let on_their_way: Vec<_> = held.iter().map(|path| serve(path, 96)).collect();
        let to_decode: Vec<_> = large.iter().map(|path| serve(path, 1_200)).collect();
        let names: Vec<_> = (0..count).map(|number| format!("hostage{number}")).collect();
        // From here on it has to go quickly: a download is given up when nothing comes for 10 s.
        let workers = try_join_all(names.iter().map(|name| stage.worker(name, 1))).await?;
        api.create(&format!("held {round}"), &on_their_way).await?;
        // Of another user, for one has at most three quarters of a worker's slots.
        let mut large = product(&format!("large {round}"), &to_decode);
        large["user_id"] = json!("another seller");
        let answer = api.post("/products", &large).await?;
        anyhow::ensure!(answer.status == 201, "POST /products answers {}: {}", answer.status, answer.body);
        let mut hostages = Self { workers, jobs: BTreeSet::new(), decoding: 0, held };
        hostages.wait_for_work(stage, count).await?;
        Ok(hostages)
    }

    /// Waits until all pictures are on their way and one is being decoded, if that can be seen.
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
        tokio::time::timeout(Duration::from_secs(60), waiting).await.context("the workers do not take jobs up")??;
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

    /// Forgets the jobs that they have ended by now; called once they can end none any more.
    ///
    /// # Errors
    /// If the database does not answer, or nothing is left.
    pub async fn count(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let running = running(stage).await?;
        self.jobs.retain(|job| running.contains(job));
        anyhow::ensure!(!self.jobs.is_empty(), "the workers had nothing in their hands");
        Ok(())
    }

    /// Stops all of them in their tracks, none in the midst of a transaction: on SQLite that would keep everybody else
    /// from writing until it goes on.
    ///
    /// # Errors
    /// If they never leave the database alone.
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
        anyhow::bail!("the workers were in the midst of a transaction {TRIES} times")
    }

    /// Lets the origin answer from now on.
    pub fn release(&self, origin: &Origin) {
        self.held.iter().for_each(|path| origin.release(path));
    }
}

/// The jobs that some worker has at its first attempt.
async fn running(stage: &Stage) -> anyhow::Result<BTreeSet<i64>> {
    let rows = stage.rows("SELECT id FROM jobs WHERE state = 'running' AND attempt = 1").await?;
    rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
}
