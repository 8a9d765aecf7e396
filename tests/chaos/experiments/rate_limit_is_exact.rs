//! P23: the rate limit is exact. Requests arrive at a hundred times the allowed rate of one client: exactly the burst
//! plus the rate are allowed, across two processes that share a Redis, and by each process alone once Redis is down.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    engines::programs,
    measurements::counts,
    program::Server,
    soundness::{self, Counts},
    stage::{Setup, Stage},
};

const RATE: f64 = 10.0;
const BURST: f64 = 20.0;
/// Tolerance in requests: the first and the last moment are known to within one request.
const TOLERANCE: f64 = 2.0;
const CLIENTS: u32 = 40;
/// Request interval of each client; together they send a thousand per second, if the machine can.
const EVERY: Duration = Duration::from_millis(40);

/// The results of some traffic.
struct Outcome {
    sent: usize,
    allowed: usize,
    /// From the first request to the last one sent, and to the last response.
    sending: Duration,
    answering: Duration,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let lasts = stage.size(Duration::from_secs(3), Duration::from_secs(10));
    stage.configure("PM_RATE_LIMIT", "10/s,burst=20");
    let mut servers = vec![stage.serve(&["--no-worker"]).await?];
    if stage.setup == Setup::Full {
        servers.push(
            stage
                .serve_at("second", SocketAddr::from(([127, 0, 0, 1], programs::spare_port())), &["--no-worker"])
                .await?,
        );
    }
    let together = pour(&servers, lasts).await?;
    let (least, most) = together.expected();
    let allowed = together.allowed;
    anyhow::ensure!((least..=most).contains(&(allowed as f64)), "{allowed} were allowed, not {least:.1} to {most:.1}");
    let mut findings = counts(json!({
        "processes": servers.len(), "sent": together.sent, "allowed": allowed,
        "expected": (BURST + RATE * together.sending.as_secs_f64()).round(),
    }));
    if stage.setup == Setup::Full {
        stage.engines().redis.kill().await;
        for (number, server) in servers.iter().enumerate() {
            let alone = pour(std::slice::from_ref(server), lasts).await?;
            let (least, most) = alone.expected();
            let allowed = alone.allowed;
            let fits = (least..=most).contains(&(allowed as f64));
            anyhow::ensure!(fits, "without Redis {allowed} were allowed, not {least:.1} to {most:.1}");
            findings.insert(format!("allowed_without_redis_{number}"), json!(allowed));
        }
        stage.engines().redis.start().await?;
    }
    findings.extend(soundness::check(stage).await?);
    for server in &mut servers {
        server.process.kill().await;
    }
    Ok(findings)
}

/// Sends requests to all of `servers` for `lasts`.
async fn pour(servers: &[Server], lasts: Duration) -> anyhow::Result<Outcome> {
    let (sent, allowed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let api = servers[number as usize % servers.len()].api();
        let (sent, allowed) = (Arc::clone(&sent), Arc::clone(&allowed));
        clients.spawn(async move {
            let mut pace = tokio::time::interval(EVERY);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while begun.elapsed() < lasts {
                pace.tick().await;
                sent.fetch_add(1, Ordering::Relaxed);
                match api.get("/products").await.context("no answer")?.status {
                    200 => allowed.fetch_add(1, Ordering::Relaxed),
                    429 => 0,
                    other => anyhow::bail!("a request is answered {other}"),
                };
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let (sent, allowed) = (sent.load(Ordering::Relaxed), allowed.load(Ordering::Relaxed));
    anyhow::ensure!(sent as f64 > (BURST + RATE * lasts.as_secs_f64()) * 2.0, "only {sent} requests were sent");
    Ok(Outcome { sent, allowed, sending: lasts, answering: begun.elapsed() })
}

impl Outcome {
    fn expected(&self) -> (f64, f64) {
        let over = |time: Duration| BURST + RATE * time.as_secs_f64();
        (over(self.sending) - TOLERANCE, over(self.answering) + TOLERANCE)
    }
}
