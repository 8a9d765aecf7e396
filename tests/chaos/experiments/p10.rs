//! P10: a product that no cache has is read from the database once, however many ask for it at the same moment.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    api::Api,
    engines::programs,
    figures::counts,
    program::Server,
    soundness::Counts,
    stage::{Setup, Stage},
};

const READERS: usize = 500;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let rounds = stage.size(2, 50);
    let mut servers = servers(stage).await?;
    let mut most = 0;
    for round in 0..rounds {
        let id = servers[0].api().create(&format!("cold {round}"), &[]).await?["id"].as_i64().context("a number")?;
        let apis: Vec<_> = servers.iter().map(Server::api).collect();
        let before = try_join_all(apis.iter().map(reads)).await?;
        // The machine's own limits are not the matter: each server gets its share of the readers.
        let share = READERS / apis.len();
        let readers = apis.iter().flat_map(|api| (0..share).map(move |_| api.product(id)));
        let seen = try_join_all(readers).await?;
        anyhow::ensure!(seen.iter().all(|product| product == &seen[0]), "readers of one product saw different ones");
        for (api, before) in apis.iter().zip(before) {
            let read = reads(api).await? - before;
            most = most.max(read);
            anyhow::ensure!(read <= 1, "one cold product was read {read} times from the database by one process");
        }
    }
    let processes = servers.len();
    for server in &mut servers {
        server.process.kill().await;
    }
    Ok(counts(json!({
        "rounds": rounds, "readers": READERS / processes * processes, "processes": processes,
        "most_database_reads_a_process": most,
    })))
}

/// With Redis two processes share what they know; with SQLite there is one.
async fn servers(stage: &Stage) -> anyhow::Result<Vec<Server>> {
    let mut servers = vec![stage.serve(&["--no-worker"]).await?];
    if stage.setup == Setup::Full {
        let address = ([127, 0, 0, 1], programs::spare_port()).into();
        servers.push(stage.serve_at("second", address, &["--no-worker"]).await?);
    }
    Ok(servers)
}

/// How many products the process has read from the database so far.
async fn reads(api: &Api) -> anyhow::Result<u64> {
    let asked = api.client().get(api.url("/metrics")).timeout(Duration::from_secs(5)).send().await?;
    let text = asked.text().await?;
    let line = text.lines().find_map(|line| line.strip_prefix("pm_product_reads_total "));
    line.map_or(Ok(0), |number| Ok(number.trim().parse()?))
}
