//! P20: an idempotency key creates one product, with many concurrent requests and with a server that dies.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    api::{Answer, Api, product},
    images,
    measurements::counts,
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
};

/// Number of clients that send the same request at a time.
const CLIENTS: usize = 50;

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (rounds, kills) = (stage.size(3, 40), stage.size(4, 60));
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::numbered_jpeg(1, 96, 64));
    let image = [origin.url("/a.jpg")];
    let mut server = stage.serve(&["--no-worker"]).await?;
    let api = server.api();
    for round in 0..rounds {
        let (key, name) = (format!("together-{round}"), format!("together {round}."));
        let body = product(&name, &image);
        let answers = join_all((0..CLIENTS).map(|_| post(&api, &key, &body))).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let made = answers[0].id().context("a product")?;
        for answer in &answers {
            anyhow::ensure!(answer.status == 201 && answer.id() == Some(made), "{}: {}", answer.status, answer.body);
        }
        anyhow::ensure!(named(&api, &name).await? == 1, "several products are named {name}");
        let other = post(&api, &key, &product("another", &[])).await?;
        let refused = other.status == 422 && other.body["code"] == "idempotency_key_reused";
        anyhow::ensure!(refused, "another body: {} {}", other.status, other.body);
    }
    anyhow::ensure!(named(&api, "another").await? == 0, "a refused request created a product");

    let (mut stored_before, mut answered_before) = (0, 0);
    for kill in 0..kills {
        let (key, name) = (format!("killed-{kill}"), format!("killed {kill}."));
        let body = product(&name, &image);
        let api = server.api();
        let sending = join_all((0..8).map(|_| post(&api, &key, &body)));
        // From before the first statement until after the response.
        let dying = async {
            tokio::time::sleep(Duration::from_millis(kill as u64 * 3 % 40)).await;
            server.process.kill().await;
        };
        let (answers, ()) = tokio::join!(sending, dying);
        let created: Vec<_> = answers.into_iter().flatten().filter(|answer| answer.status == 201).collect();
        server = stage.serve(&["--no-worker"]).await?;
        let api = server.api();
        let stored = named(&api, &name).await?;
        anyhow::ensure!(stored >= created.len().min(1), "{name} was acknowledged but is missing");
        (stored_before, answered_before) = (stored_before + stored, answered_before + usize::from(!created.is_empty()));
        let again = post(&api, &key, &body).await?;
        anyhow::ensure!(again.status == 201, "the retry of {name}: {} {}", again.status, again.body);
        let same = created.iter().all(|answer| answer.id() == again.id());
        anyhow::ensure!(same, "the retry of {name} created another product");
        anyhow::ensure!(named(&api, &name).await? == 1, "not exactly one product is named {name}");
    }
    let mut counts = counts(json!({
        "rounds": rounds, "clients_a_round": CLIENTS, "kills": kills, "stored_before_the_retry": stored_before,
        "answered_before_the_kill": answered_before, "made_twice": 0,
    }));
    // Each image has one job, which a worker now runs.
    let mut worker = stage.worker("worker", 2).await?;
    stage.settled(Duration::from_secs(120)).await?;
    worker.kill().await;
    counts.extend(soundness::check(stage).await?);
    server.process.kill().await;
    Ok(counts)
}

async fn post(api: &Api, key: &str, body: &Value) -> anyhow::Result<Answer> {
    let response = api.client().post(api.url("/products")).header("Idempotency-Key", key).json(body).send().await?;
    let status = response.status().as_u16();
    Ok(Answer { status, body: response.json().await.unwrap_or_default() })
}

async fn named(api: &Api, name: &str) -> anyhow::Result<usize> {
    let list = api.get(&format!("/products?name={}", name.replace(' ', "%20"))).await?;
    Ok(list.body["items"].as_array().context("a list")?.len())
}
