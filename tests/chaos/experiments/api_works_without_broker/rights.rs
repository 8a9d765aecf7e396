//! `/readyz` detects a broker that answers but is unusable: permissions are revoked one by one, then the virtual host
//! is deleted. Products are created meanwhile, and everything recovers once the broker is repaired.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    api::Api,
    engines::{RabbitMq, programs, wait_until},
    measurements::counts,
    soundness::Counts,
    stage::Stage,
};

/// A check is at most 3 s old, and a closed connection is replaced within 5 s.
const LIMIT: Duration = Duration::from_secs(30);
/// A regular expression that matches no name.
const NOTHING: &str = "^$";
const EVERYTHING: &str = ".*";
/// Revoked permissions (configure, write, read), and the one that `/readyz` must name.
const CASES: [(&str, [&str; 3], &str); 3] = [
    ("configure", [NOTHING, EVERYTHING, EVERYTHING], "queue"),
    ("write", [EVERYTHING, NOTHING, EVERYTHING], "exchange"),
    ("read", [EVERYTHING, EVERYTHING, NOTHING], "queue"),
];

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let rabbitmq = &stage.engines().rabbitmq;
    let vhost = format!("{}_rights", stage.name);
    let usual = RabbitMq::url(rabbitmq.address());
    let own = format!("{}/{vhost}", usual.trim_end_matches("/%2f").trim_end_matches('/'));
    make(stage, &vhost).await?;
    stage.configure("RABBITMQ_URL", own);
    let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
    let mut server = stage.serve_at("rights", address, &["--workers", "1"]).await?;
    let api = server.api();
    is_up(&api, "at the beginning").await?;
    let mut seen = Vec::new();
    for (name, permissions, names) in CASES {
        permit(stage, &vhost, permissions).await?;
        seen.push(is_down(&api, name, &["refused", names]).await?);
        permit(stage, &vhost, [EVERYTHING; 3]).await?;
        is_up(&api, name).await?;
    }
    rabbitmq.control(&["clear_permissions", "-p", &vhost, "guest"]).await?;
    seen.push(is_down(&api, "no permissions at all", &["refused"]).await?);
    permit(stage, &vhost, [EVERYTHING; 3]).await?;
    is_up(&api, "permissions again").await?;
    rabbitmq.control(&["delete_vhost", &vhost]).await?;
    seen.push(is_down(&api, "no virtual host", &[&vhost]).await?);
    make(stage, &vhost).await?;
    is_up(&api, "the virtual host again").await?;
    server.process.kill().await;
    rabbitmq.control(&["delete_vhost", &vhost]).await?;
    stage.configure("RABBITMQ_URL", usual);
    Ok(counts(json!({"rights_lost_and_seen": seen.len(), "last_words": seen.last()})))
}

async fn make(stage: &Stage, vhost: &str) -> anyhow::Result<()> {
    stage.engines().rabbitmq.control(&["add_vhost", vhost]).await?;
    permit(stage, vhost, [EVERYTHING; 3]).await
}

async fn permit(stage: &Stage, vhost: &str, [configure, write, read]: [&str; 3]) -> anyhow::Result<()> {
    let words = ["set_permissions", "-p", vhost, "guest", configure, write, read];
    stage.engines().rabbitmq.control(&words).await.map(|_| ())
}

/// Returns what `/readyz` reports about the queue.
async fn queue(api: &Api) -> anyhow::Result<Value> {
    let answer = api.get("/readyz").await?;
    anyhow::ensure!(answer.status == 200, "a server without its broker is not ready: {}", answer.status);
    let components = answer.body["components"].as_array().context("components")?;
    components.iter().find(|component| component["name"] == "queue").cloned().context("a queue")
}

async fn is_up(api: &Api, when: &str) -> anyhow::Result<()> {
    wait_until(&format!("the queue is up: {when}"), LIMIT, async || {
        queue(api).await.is_ok_and(|queue| queue["status"] == "up")
    })
    .await
}

/// Waits until the queue is down for a reason with all `words`; returns the reason.
async fn is_down(api: &Api, when: &str, words: &[&str]) -> anyhow::Result<String> {
    let mut last = String::new();
    let what = format!("the queue is down: {when}");
    let seen = wait_until(&what, LIMIT, async || {
        let Ok(queue) = queue(api).await else { return false };
        last = queue["error"].as_str().unwrap_or_default().to_owned();
        queue["status"] == "down" && words.iter().all(|word| last.contains(word))
    });
    seen.await.with_context(|| format!("the last reason was {last:?}; expected {words:?}"))?;
    let created = api.create(&format!("without {when}"), &[]).await;
    created.context("products are accepted meanwhile")?;
    Ok(last)
}
