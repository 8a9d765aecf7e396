//! P9: no stale read after an acknowledged write. Writers in one process and a worker change products while readers of
//! other processes read them; Redis evicts, is killed, and restarts from an old snapshot.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use pm::{
    app::App,
    catalog::{Selection, Which},
    config::{self, Flags},
    domain::{NewProduct, ProductDraft, ProductId},
};
use serde_json::json;
use tokio::{sync::Mutex, time::sleep};

use super::failover::Failovers;
use crate::{
    api::Api,
    engines::programs,
    freshness::Freshness,
    images,
    measurements::counts,
    origin::Origin,
    program::Server,
    soundness::{self, Counts},
    stage::{Setup, Stage},
};

const WRITERS: usize = 8;
const READERS: usize = 32;

/// State that writers and readers share.
struct Scene<'a> {
    stage: &'a Stage,
    app: App,
    servers: Vec<Api>,
    ids: Vec<i64>,
    /// One writer per product at a time, so that it knows which version it wrote.
    turns: HashMap<i64, Mutex<()>>,
    fresh: Freshness,
    until: Instant,
    reads: AtomicU64,
    hits: AtomicU64,
    writes: AtomicU64,
    made: AtomicU64,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    run_with(stage, &Faults::Restores).await
}

/// The faults of Redis meanwhile.
pub(super) enum Faults {
    /// It is killed and restarts from an old snapshot, and it evicts.
    Restores,
    /// Its address switches to another server and back.
    Failovers(Box<Failovers>),
}

pub(super) async fn run_with(stage: &Stage, faults: &Faults) -> anyhow::Result<Counts> {
    let length = match faults {
        Faults::Restores => stage.size(Duration::from_secs(6), Duration::from_secs(60)),
        Faults::Failovers(_) => stage.size(Duration::from_secs(12), Duration::from_secs(120)),
    };
    let evicting = stage.setup == Setup::Full && matches!(faults, Faults::Restores);
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 48));
    let mut servers = servers(stage).await?;
    let mut worker = stage.worker("worker", 2).await?;
    let app = another_process(stage).await?;
    let mut ids = Vec::new();
    for number in 0..stage.size(20, 50) {
        let made = servers[0].api().create(&format!("product {number}"), &[origin.url("/a.jpg")]).await?;
        ids.push(made["id"].as_i64().context("a number")?);
    }
    stage.settled(Duration::from_secs(60)).await?;
    if evicting {
        evicts(stage, true).await?;
    }
    let turns = ids.iter().map(|id| (*id, Mutex::default())).collect();
    let scene = Scene {
        stage,
        app,
        servers: servers.iter().map(Server::api).collect(),
        ids,
        turns,
        fresh: Freshness::default(),
        until: Instant::now() + length,
        reads: AtomicU64::new(0),
        hits: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        made: AtomicU64::new(0),
    };
    let readers = try_join_all((0..READERS).map(|number| scene.read(number as u64)));
    let writers = try_join_all((0..WRITERS).map(|number| scene.write(number as u64)));
    let happen = async {
        match faults {
            Faults::Restores => scene.kill_redis().await,
            Faults::Failovers(failovers) => failovers.happen(stage, scene.until).await,
        }
    };
    let (_, _, restores) = tokio::try_join!(readers, writers, happen)?;
    if evicting {
        evicts(stage, false).await?;
    }
    stage.settled(Duration::from_secs(120)).await?;
    let mut counts = scene.summary(restores);
    drop(scene);
    counts.extend(soundness::check(stage).await?);
    worker.kill().await;
    for server in &mut servers {
        server.process.kill().await;
    }
    Ok(counts)
}

/// Two processes with Redis; on SQLite one, beside the processes of the worker and the writers.
async fn servers(stage: &Stage) -> anyhow::Result<Vec<Server>> {
    let mut servers = vec![stage.serve(&["--no-worker"]).await?];
    if stage.setup == Setup::Full {
        let address = ([127, 0, 0, 1], programs::spare_port()).into();
        servers.push(stage.serve_at("second", address, &["--no-worker"]).await?);
    }
    Ok(servers)
}

/// The library in this process: the writers have their own connections and cache.
async fn another_process(stage: &Stage) -> anyhow::Result<App> {
    let environment = stage.spec("writers").environment;
    Ok(App::build(config::load(&Flags::default(), &stage.directory, environment)?).await?)
}

/// Limits the cache to almost nothing, or not at all.
async fn evicts(stage: &Stage, little: bool) -> anyhow::Result<()> {
    let redis = &stage.engines().redis;
    // The memory of Redis itself and of its clients counts as well.
    let used: String = redis.command(&["INFO", "memory"]).await?;
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory in INFO")?;
    let most = if little { used.trim().parse::<u64>()? + (1 << 20) } else { 0 };
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", &most.to_string()]).await?;
    let policy = if little { "allkeys-random" } else { "noeviction" };
    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]).await
}

impl Scene<'_> {
    async fn read(&self, number: u64) -> anyhow::Result<()> {
        let mut random = self.stage.random(100 + number);
        while Instant::now() < self.until {
            let id = self.ids[random.usize(..self.ids.len())];
            let api = &self.servers[random.usize(..self.servers.len())];
            self.look(api, id).await?;
        }
        Ok(())
    }

    /// Reads once; a version older than the last acknowledged write breaks the promise.
    async fn look(&self, api: &Api, id: i64) -> anyhow::Result<()> {
        let floor = self.fresh.floor(id);
        let response = api.client().get(api.url(&format!("/products/{id}"))).send().await?;
        let status = response.status();
        let hit = response.headers().get("x-cache").is_some_and(|from| from == "hit");
        let body: serde_json::Value = response.json().await?;
        anyhow::ensure!(status == 200, "product {id}, acknowledged before, is answered {status}: {body}");
        let version = body["version"].as_i64().context("a version")?;
        let from = if hit { "the cache" } else { "the database" };
        anyhow::ensure!(!floor.is_above(version), "stale: {id} in version {version} from {from}, after {floor:?}");
        self.reads.fetch_add(1, Relaxed);
        self.hits.fetch_add(u64::from(hit), Relaxed);
        Ok(())
    }

    async fn write(&self, number: u64) -> anyhow::Result<()> {
        let mut random = self.stage.random(200 + number);
        while Instant::now() < self.until {
            if random.u8(..4) == 0 {
                self.create(random.usize(..self.servers.len())).await?;
            } else {
                self.rerun(self.ids[random.usize(..self.ids.len())]).await?;
            }
            sleep(Duration::from_millis(random.u64(..20))).await;
        }
        Ok(())
    }

    /// Checks that a product is visible once acknowledged, even if it was requested before it existed.
    async fn create(&self, server: usize) -> anyhow::Result<()> {
        let made = self.made.fetch_add(1, Relaxed);
        let next = self.stage.number("SELECT coalesce(max(id), 0) + 1 FROM products").await?;
        for api in &self.servers {
            api.get(&format!("/products/{next}")).await?;
        }
        let policy = self.app.catalog.policy();
        let draft = ProductDraft {
            user_id: Some("writer".into()),
            product_name: Some(format!("made {made}")),
            product_price: Some("1".into()),
            ..ProductDraft::default()
        };
        let product = self.app.catalog.create(NewProduct::parse(draft, policy)?, None).await?;
        self.fresh.acknowledged(product.id.0, product.version);
        self.writes.fetch_add(1, Relaxed);
        self.look(&self.servers[server], product.id.0).await
    }

    /// Queues a product's image again, which increments its version; the worker does so twice more later.
    async fn rerun(&self, id: i64) -> anyhow::Result<()> {
        let _turn = self.turns[&id].lock().await;
        let before = self.stage.number(&format!("SELECT version FROM products WHERE id = {id}")).await?;
        let selection = Selection { products: vec![ProductId(id)], status: Which::All, ..Selection::default() };
        let batch = self.app.catalog.reprocess(&selection, None, 1, None).await?;
        if !batch.images.is_empty() {
            self.fresh.acknowledged(id, before + 1);
            self.writes.fetch_add(1, Relaxed);
            for api in &self.servers {
                self.look(api, id).await?;
            }
        }
        Ok(())
    }

    /// Kills Redis again and again, each time a while after a save, so that the snapshot is old.
    async fn kill_redis(&self) -> anyhow::Result<usize> {
        if self.stage.setup == Setup::Embedded {
            return Ok(0);
        }
        let redis = &self.stage.engines().redis;
        let mut restores = 0;
        let mut random = self.stage.random(1);
        while Instant::now() + Duration::from_secs(2) < self.until {
            sleep(Duration::from_millis(random.u64(500..1_000))).await;
            // After an unfinished save Redis restarts empty.
            let _ = redis.command::<String>(&["SAVE"]).await;
            sleep(Duration::from_millis(random.u64(100..600))).await;
            redis.kill().await;
            sleep(Duration::from_millis(random.u64(..300))).await;
            redis.start().await?;
            evicts(self.stage, true).await?;
            restores += 1;
        }
        Ok(restores)
    }

    fn summary(&self, restores: usize) -> Counts {
        counts(json!({
            "reads": self.reads.load(Relaxed), "reads_from_cache": self.hits.load(Relaxed),
            "writes": self.writes.load(Relaxed), "stale_reads": 0, "faults_of_redis": restores,
            "processes": self.servers.len() + 2,
        }))
    }
}
