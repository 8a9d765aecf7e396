//! P25: installations never mix. Two share the same servers with default names: neither shows the other's products or
//! runs its jobs, and a shared blob store is refused. After a catalog is emptied, no cache still returns its
//! products.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::backup_restores_everything::Installation;
use crate::{
    api::Api,
    images,
    measurements::counts,
    origin::Origin,
    soundness::Counts,
    stage::{Setup, Stage},
};

/// Time limit for an image of an idle installation while the other one's workers are busy.
const READY_LIMIT: Duration = Duration::from_secs(30);

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let products = stage.size(20, 400);
    let (first, second) = (installation(stage, "first").await?, installation(stage, "second").await?);
    let origin = Origin::start().await;
    let mut servers = [first.serve(2).await?, second.serve(2).await?];
    let mut slowest = Duration::ZERO;
    for (installation, name) in [(&first, "first"), (&second, "second")] {
        for number in 0..products {
            let path = format!("/{name}-{number}.jpg");
            origin.serve(&path, "image/jpeg", images::numbered_jpeg(number, 96, 64));
            installation.api().create(&format!("{name} {number}"), &[origin.url(&path)]).await?;
        }
        let began = Instant::now();
        ready(&installation.api(), products).await?;
        slowest = slowest.max(began.elapsed());
    }
    // Twice, so that the second response comes from the cache.
    for _ in 0..2 {
        for number in 1..=i64::from(products) {
            is_own(&first.api(), number, "first ").await?;
            is_own(&second.api(), number, "second ").await?;
        }
    }
    let refused = refuses_a_foreign_store(&first, &second).await?;

    // Emptied under the running server: its cached products are gone too.
    first.pm(&["migrate", "fresh", "--yes"]).await?;
    let mut outlived = 0;
    for number in 1..=i64::from(products) {
        let answer = first.api().get(&format!("/products/{number}")).await?;
        outlived += u32::from(answer.status != 404);
        is_own(&second.api(), number, "second ").await?;
    }
    anyhow::ensure!(outlived == 0, "{outlived} products are still returned after their catalog was emptied");
    origin.serve("/again.jpg", "image/jpeg", images::numbered_jpeg(7, 96, 64));
    first.api().create("first again", &[origin.url("/again.jpg")]).await?;
    ready(&first.api(), 1).await.context("after the catalog was emptied")?;
    for server in &mut servers {
        server.kill().await;
    }
    Ok(counts(json!({
        "products": 2 * products, "foreign_answers": 0, "outlived": outlived, "commands_refused": refused,
        "slowest_ready_ms": u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX),
    })))
}

/// An installation whose settings name only the servers.
async fn installation<'a>(stage: &'a Stage, name: &'static str) -> anyhow::Result<Installation<'a>> {
    let mut installation = Installation::new(stage, name, stage.setup, "").await?;
    for name in ["PM_REDIS_PREFIX", "PM_RABBITMQ_QUEUE"] {
        installation.environment.remove(name);
    }
    if stage.setup == Setup::Full {
        installation.pm(&["migrate", "up"]).await?;
    }
    Ok(installation)
}

async fn ready(api: &Api, count: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let mut ready = 0;
        for id in 1..=count {
            let product = api.product(i64::from(id)).await?;
            ready += u32::from(product["status"] == "ready");
        }
        if ready == count {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < READY_LIMIT, "{ready} of {count} are ready after {READY_LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn is_own(api: &Api, id: i64, prefix: &str) -> anyhow::Result<()> {
    let product = api.product(id).await?;
    let name = product["product_name"].as_str().context("a name")?;
    anyhow::ensure!(name.starts_with(prefix), "product {id} of `{prefix}` is answered as `{name}`");
    Ok(())
}

/// Checks that every command of `other` refuses the store of `owner` and names the owner; returns their number.
async fn refuses_a_foreign_store(owner: &Installation<'_>, other: &Installation<'_>) -> anyhow::Result<usize> {
    let mut environment = other.environment.clone();
    let store = format!("file://{}/blobs", owner.environment["PM_DATA_DIR"]);
    environment.insert("PM_STORAGE_URL".into(), store.clone());
    let commands: [&[&str]; 5] = [
        &["worker"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["product", "list"],
        &["product", "add", "--user-id", "u", "--name", "n", "--price", "1"],
        &["gc"],
    ];
    for words in commands {
        let mut spec = other.spec().arguments(words);
        spec.environment.clone_from(&environment);
        let output = spec.run(Duration::from_secs(30)).await?;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(
            output.status.code() == Some(2),
            "pm {words:?} with another installation's store: {}: {printed}",
            output.status
        );
        anyhow::ensure!(printed.contains(&store) && printed.contains("it belongs to installation"), "{printed}");
    }
    Ok(commands.len())
}
