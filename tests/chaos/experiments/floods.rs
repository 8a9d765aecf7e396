//! P31: no client blocks other clients. Request bodies that never arrive, responses that are never read, endless
//! streams of events, bodies with only field names, bodies that drip, large batches, costly searches, lists and batches
//! whose clients disconnect: each runs for a while, and other clients notice nothing.

mod attacks;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    api::{Api, product},
    images,
    measurements::{Times, counts, milliseconds},
    origin::Origin,
    processes::{Process, usage::Usage},
    soundness::Counts,
    stage::Stage,
};
use attacks::{ATTACKS, Target};

/// Number of products in a large list.
const LISTED: usize = 100;
/// Interval of good requests.
const PACE: Duration = Duration::from_millis(50);
const MAX_P99: Duration = Duration::from_millis(150);
/// Beside other experiments even a server without attackers is slower.
const MAX_P95_BESIDE_OTHERS: Duration = Duration::from_secs(3);
/// Allowed growth of the server's memory: 64 MiB for bodies, 64 MiB for unread responses, and 64 MiB.
const MAX_GROWTH_KIB: u64 = 192 << 10;

/// Addresses of well-behaved clients.
struct Good<'a> {
    api: &'a Api,
    id: i64,
    image: &'a str,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let length = stage.size(Duration::from_secs(3), Duration::from_secs(40));
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::numbered_jpeg(1, 1_600, 1_200));
    let mut server = stage.serve(&["--workers", "1"]).await?;
    let api = server.api();
    // A debug build that shares its cores needs most of a second to write a large list.
    let long = "x".repeat(stage.size(1_000, 9_000));
    for number in 0..LISTED {
        let mut body = product(&format!("listed {number}"), &[]);
        body["product_description"] = json!(long);
        anyhow::ensure!(api.post("/products", &body).await?.status == 201, "a product was not stored");
    }
    let id = api.create("read meanwhile", &[origin.url("/a.jpg")]).await?["id"].as_i64().context("a number")?;
    stage.settled(Duration::from_secs(60)).await?;
    let product = api.product(id).await?;
    let image = product["images"][0]["renditions"][0]["url"].as_str().context("a rendition")?;
    let target = Target {
        address: server.address,
        image: image.to_owned(),
        clients: stage.size(300, 2_000),
        // Shorter than the wait after which a single pause counts.
        drip: stage.size(Duration::from_millis(240), Duration::from_millis(150)),
        batch_bytes: stage.size(400 << 10, 7 << 20),
        streams: stage.size(16, 64),
    };
    let good = Good { api: &api, id, image };
    let (before, _) = good.requests(length.min(Duration::from_secs(5))).await?;
    let idle = usage(&server.process)?;
    let mut found = counts(json!({
        "good_p99_before_ms": milliseconds(before.quantile(0.99)), "good_failed": 0,
        "memory_idle_kib": idle.rss_kib, "descriptors_idle": idle.descriptors,
    }));
    // The p99 of a few dozen requests is their maximum, which says more about the machine than about the server.
    let (judged, limit) = stage.size((0.95, MAX_P95_BESIDE_OTHERS), (0.99, MAX_P99));
    for (name, begin) in ATTACKS {
        let attack = begin(&target);
        let (times, slowest) = good.requests(length).await.with_context(|| format!("during {name}"))?;
        let during = usage(&server.process)?;
        drop(attack);
        let (p99, slow) = (times.quantile(0.99), times.quantile(judged));
        found.extend(counts(json!({ *name: {
            "good_requests": times.len(), "p50_ms": milliseconds(times.quantile(0.5)), "p99_ms": milliseconds(p99),
            "slowest": slowest, "memory_kib": during.rss_kib, "descriptors": during.descriptors,
        }})));
        anyhow::ensure!(slow < limit, "good requests had a p{} of {slow:?} during {name}: {found:?}", judged * 100.0);
        let most = idle.rss_kib + MAX_GROWTH_KIB;
        anyhow::ensure!(during.rss_kib < most, "memory grew too much during {name}: {found:?}");
    }
    anyhow::ensure!(server.process.is_running(), "the server has ended");
    server.process.kill().await;
    Ok(found)
}

fn usage(process: &Process) -> anyhow::Result<Usage> {
    Usage::of(process.pid()).context("the server is not running")
}

impl Good<'_> {
    /// Sends one request of each kind after the other, every fourth over a new connection.
    /// Returns their times, and what the slowest was.
    async fn requests(&self, length: Duration) -> anyhow::Result<(Times, String)> {
        let fresh = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        let number = (length.as_millis() / PACE.as_millis()) as u32;
        let requests = (0..number).map(|number| {
            let client = if number % 4 == 0 { &fresh } else { self.api.client() };
            async move {
                sleep(PACE * number).await;
                let began = Instant::now();
                let what = self.request(client, number).await.with_context(|| format!("good request {number}"))?;
                anyhow::Ok((began.elapsed(), format!("request {number}, {what}")))
            }
        });
        let mut times = Times::default();
        let mut slowest = (Duration::ZERO, String::new());
        for outcome in join_all(requests).await {
            let outcome = outcome?;
            times.note(outcome.0);
            slowest = slowest.max(outcome);
        }
        Ok((times, slowest.1))
    }

    async fn request(&self, client: &reqwest::Client, number: u32) -> anyhow::Result<&'static str> {
        let (what, request, expected) = match number % 5 {
            0 => ("a product", client.get(self.api.url(&format!("/products/{}", self.id))), 200),
            1 => ("a list", client.get(self.api.url("/products?limit=5")), 200),
            2 => ("a new product", client.post(self.api.url("/products")).json(&product("meanwhile", &[])), 201),
            3 => ("an image", client.get(self.api.url(self.image)), 200),
            _ => ("readiness", client.get(self.api.url("/readyz")), 200),
        };
        let response = request.timeout(Duration::from_secs(30)).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        anyhow::ensure!(status == expected, "{what} is answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(what)
    }
}
