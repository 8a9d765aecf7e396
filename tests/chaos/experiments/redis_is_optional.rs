//! P8: Redis is optional. It is stopped, frozen, made to let its clients wait, and cut off silently; reads fall back to
//! the database, slower at first and not noticeably once the breaker is open, and show every write.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    api::Api,
    engines::{Redis, programs, wait_until},
    measurements::{Times, counts, milliseconds},
    program::Server,
    proxy::Proxy,
    soundness::{self, Counts},
    stage::Stage,
};

/// The faults of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Stopped,
    Frozen,
    Paused,
    Silent,
}

const FAULTS: [Fault; 4] = [Fault::Stopped, Fault::Frozen, Fault::Paused, Fault::Silent];
const PRODUCTS: usize = 20;
/// Time until the breaker is open.
const AT_FIRST: Duration = Duration::from_secs(1);
/// Allowed delay compared with a process without a cache: at first, and once the breaker is open.
const ADDED_AT_FIRST: Duration = Duration::from_millis(60);
const ADDED_LATER: Duration = Duration::from_millis(1);

/// The measured servers.
struct Scene<'a> {
    stage: &'a Stage,
    proxy: Proxy,
    /// Behind the proxy to Redis.
    api: Api,
    /// Without Redis: the time of the database alone, at the same time and under the same load.
    bare: Api,
    ids: Vec<i64>,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let engines = stage.engines();
    let proxy = Proxy::start(engines.redis.address()).await;
    let usual = Redis::url(engines.redis.address());
    stage.configure("REDIS_URL", "");
    let mut bare = stage.serve_at("bare", address(), &["--no-worker"]).await?;
    stage.configure("REDIS_URL", Redis::url(proxy.address()));
    let mut server = stage.serve(&["--no-worker"]).await?;
    stage.configure("REDIS_URL", usual);
    let scene = Scene { stage, proxy, api: server.api(), bare: bare.api(), ids: products(&server).await? };
    let rounds = stage.size(1, 10);
    let mut all = counts(json!({"outages": rounds * FAULTS.len()}));
    let (mut first, mut later) = (Times::default(), Times::default());
    for _ in 0..rounds {
        for fault in FAULTS {
            let (at_first, afterwards) = scene.outage(fault).await.with_context(|| format!("{fault:?}"))?;
            first.note(at_first);
            later.note(afterwards);
        }
    }
    all.insert("added_at_first_at_most_ms".to_owned(), milliseconds(first.longest()));
    all.insert("added_later_at_most_ms".to_owned(), milliseconds(later.longest()));
    // Beside other experiments times of a millisecond are meaningless.
    let most = ADDED_LATER * stage.size(10, 1);
    anyhow::ensure!(later.longest() <= most, "with the breaker open a read takes {:?} longer", later.longest());
    all.extend(soundness::check(stage).await?);
    server.process.kill().await;
    bare.process.kill().await;
    Ok(all)
}

fn address() -> std::net::SocketAddr {
    ([127, 0, 0, 1], programs::spare_port()).into()
}

async fn products(server: &Server) -> anyhow::Result<Vec<i64>> {
    let mut ids = Vec::new();
    for number in 0..PRODUCTS {
        ids.push(server.api().create(&format!("product {number}"), &[]).await?["id"].as_i64().context("a number")?);
    }
    Ok(ids)
}

impl Scene<'_> {
    /// One outage from a warm cache to a warm cache; returns the added read time, at first and later.
    async fn outage(&self, fault: Fault) -> anyhow::Result<(Duration, Duration)> {
        self.warm().await?;
        self.leave(fault).await?;
        let began = Instant::now();
        let (mut slow, mut usual) = (Times::default(), Times::default());
        while began.elapsed() < AT_FIRST {
            slow.note(self.read(&self.api, slow.len(), None).await?);
            usual.note(self.read(&self.bare, usual.len(), Some("miss")).await?);
        }
        // The slowest reads at first met the time limits of operations; the database's time is the reference.
        let added_at_first = slow.longest().saturating_sub(usual.quantile(0.99));
        anyhow::ensure!(added_at_first <= ADDED_AT_FIRST, "at first a read takes {added_at_first:?} longer");
        let created = self.api.create("while Redis is unavailable", &[]).await?;
        let id = created["id"].as_i64().context("a number")?;
        anyhow::ensure!(self.api.product(id).await? == created, "a product created meanwhile is not returned");

        let (mut slow, mut usual) = (Times::default(), Times::default());
        for number in 0..self.stage.size(150, 2_000) {
            slow.note(self.read(&self.api, number, None).await?);
            usual.note(self.read(&self.bare, number, None).await?);
        }
        let added_later = slow.quantile(0.5).saturating_sub(usual.quantile(0.5));
        self.come_back(fault).await?;
        self.warm().await?;
        Ok((added_at_first, added_later))
    }

    async fn leave(&self, fault: Fault) -> anyhow::Result<()> {
        let redis = &self.stage.engines().redis;
        match fault {
            Fault::Stopped => redis.stop().await,
            Fault::Frozen => {
                redis.freeze().await;
                Ok(())
            }
            // `CLIENT PAUSE` cannot be ended early, since `CLIENT UNPAUSE` waits as well.
            Fault::Paused => {
                redis.pause_clients(self.stage.size(Duration::from_secs(5), Duration::from_secs(20))).await
            }
            Fault::Silent => {
                self.proxy.stall();
                Ok(())
            }
        }
    }

    async fn come_back(&self, fault: Fault) -> anyhow::Result<()> {
        let redis = &self.stage.engines().redis;
        match fault {
            Fault::Stopped => redis.start().await,
            Fault::Frozen => {
                redis.thaw().await;
                Ok(())
            }
            Fault::Paused => {
                let answers = async || redis.command::<String>(&["PING"]).await.is_ok();
                wait_until("Redis answers its clients again", Duration::from_secs(30), answers).await
            }
            Fault::Silent => {
                self.proxy.restore();
                Ok(())
            }
        }
    }

    /// Reads until every product comes from the cache.
    async fn warm(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        for id in &self.ids {
            while self.get(&self.api, *id).await?.1 != "hit" {
                anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "the cache is not used again after 20 s");
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn read(&self, api: &Api, number: usize, wanted: Option<&str>) -> anyhow::Result<Duration> {
        let id = self.ids[number % self.ids.len()];
        let began = Instant::now();
        let (product, from) = self.get(api, id).await?;
        let took = began.elapsed();
        anyhow::ensure!(product["id"] == id && wanted.is_none_or(|wanted| from == wanted), "{from}: {product}");
        Ok(took)
    }

    /// Returns a product and where it came from; a status other than 200 breaks the promise.
    async fn get(&self, api: &Api, id: i64) -> anyhow::Result<(Value, String)> {
        let response = api.client().get(api.url(&format!("/products/{id}"))).send().await?;
        anyhow::ensure!(response.status() == 200, "GET /products/{id} answers {}", response.status());
        let from = response.headers().get("x-cache").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let from = from.to_owned();
        Ok((response.json().await?, from))
    }
}
