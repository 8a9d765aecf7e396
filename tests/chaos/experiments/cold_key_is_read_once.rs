//! P10: a product that no cache has is read from the database once, however many requests arrive at the same moment; at
//! most twice if another process is filling the cache.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    api::Api,
    engines::programs,
    measurements::counts,
    program::Server,
    soundness::Counts,
    stage::{Setup, Stage},
};

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (rounds, readers_in_all) = (stage.size(2, 50), stage.size(100, 500));
    let mut servers = servers(stage).await?;
    let (mut most, mut rounds_left, mut without_cache) = (0, rounds, 0);
    while rounds_left > 0 {
        let round = rounds - rounds_left + without_cache;
        let id = servers[0].api().create(&format!("cold {round}"), &[]).await?["id"].as_i64().context("a number")?;
        let apis: Vec<_> = servers.iter().map(Server::api).collect();
        let before = try_join_all(apis.iter().map(Counters::of)).await?;
        // Connection limits are not tested here: each server gets a share of the readers.
        let share = readers_in_all / apis.len();
        let readers = apis.iter().flat_map(|api| (0..share).map(move |_| api.product(id)));
        let seen = try_join_all(readers).await?;
        anyhow::ensure!(seen.iter().all(|product| product == &seen[0]), "readers of one product got different bodies");
        let after = try_join_all(apis.iter().map(Counters::of)).await?;
        // On a busy machine Redis may exceed its time limit: such a round says nothing about reads with a cache.
        if before.iter().zip(&after).any(|(before, after)| after.cache_errors > before.cache_errors) {
            without_cache += 1;
            anyhow::ensure!(without_cache <= 20 + rounds, "Redis is too slow for a result");
            continue;
        }
        rounds_left -= 1;
        for (before, after) in before.iter().zip(&after) {
            let read = after.reads - before.reads;
            most = most.max(read);
            // While another process is filling the cache, a reader may have to query the database itself.
            anyhow::ensure!(
                read <= servers.len() as u64,
                "one process read a cold product {read} times from the database"
            );
        }
    }
    let processes = servers.len();
    for server in &mut servers {
        server.process.kill().await;
    }
    Ok(counts(json!({
        "rounds": rounds, "readers": readers_in_all / processes * processes, "processes": processes,
        "most_database_reads_a_process": most, "rounds_without_cache": without_cache,
    })))
}

/// With Redis two processes share the cache; with SQLite there is one process.
async fn servers(stage: &Stage) -> anyhow::Result<Vec<Server>> {
    let mut servers = vec![stage.serve(&["--no-worker"]).await?];
    if stage.setup == Setup::Full {
        let address = ([127, 0, 0, 1], programs::spare_port()).into();
        servers.push(stage.serve_at("second", address, &["--no-worker"]).await?);
    }
    Ok(servers)
}

/// Counters of a process.
struct Counters {
    /// Products read from the database.
    reads: u64,
    /// Failed cache lookups and fills.
    cache_errors: u64,
}

impl Counters {
    async fn of(api: &Api) -> anyhow::Result<Self> {
        let asked = api.client().get(api.url("/metrics")).timeout(Duration::from_secs(5)).send().await?;
        let text = asked.text().await?;
        let sum = |name: &str, label: &str| -> anyhow::Result<u64> {
            let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
            lines.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
        };
        let errors = sum("pm_cache_requests_total{", "outcome=\"error\"")?;
        let unfilled = sum("pm_cache_fills_total{", "outcome=\"error\"")?;
        Ok(Self { reads: sum("pm_product_reads_total ", "")?, cache_errors: errors + unfilled })
    }
}
