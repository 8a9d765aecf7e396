//! P30: no user is starved. One user has queued very many images of a slow host, another one many small images; the few
//! images of a third user are ready soon all the same, and then those of the second.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    api::Api,
    images,
    measurements::{counts, milliseconds},
    origin::Origin,
    soundness::Counts,
    stage::Stage,
};

const IMAGES_A_PRODUCT: usize = 32;
const FEW: usize = 10;
/// Time limit for the few images; a debug build needs longer for each.
const LIMIT: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(10)];

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (dripping, tiny) = (stage.size(30, 1_000), stage.size(60, 1_500));
    let [slow, quick, third] = [Origin::start().await, Origin::start().await, Origin::start().await];
    for number in 0..tiny {
        quick.serve(&format!("/{number}.jpg"), "image/jpeg", images::numbered_jpeg(number as u32, 64, 48));
    }
    for number in 0..FEW {
        third.serve(&format!("/{number}.jpg"), "image/jpeg", images::numbered_jpeg(number as u32, 640, 480));
    }
    stage.unset("PM_FETCH_PER_HOST");
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut worker = stage.worker("worker", 2).await?;
    let api = server.api();
    let many = batch(&api, "many", dripping, |_| {
        (0..IMAGES_A_PRODUCT).map(|number| slow.url(&format!("/drip?{number}"))).collect()
    });
    let many = many.await?;
    // The worker is busy by now.
    slow.wait_for_hits("/drip", 4).await;
    let began = Instant::now();
    let small = batch(&api, "small", tiny, |number| vec![quick.url(&format!("/{number}.jpg"))]).await?;
    let few_began = Instant::now();
    let few = batch(&api, "few", FEW, |number| vec![third.url(&format!("/{number}.jpg"))]).await?;
    let few_took = ready(&api, &few, few_began, stage.size(LIMIT[0], LIMIT[1])).await?;
    let small_took = ready(&api, &small, began, Duration::from_secs(600)).await?;
    let found = counts(json!({
        "dripping_images": dripping * IMAGES_A_PRODUCT, "tiny_images": tiny, "few": FEW,
        "few_ready_ms": milliseconds(few_took), "tiny_ready_ms": milliseconds(small_took),
        "dripping_requests": slow.hits("/drip"),
    }));
    // Removes the slow downloads, which would take hours.
    stream::iter(many.into_iter().map(|id| api.client().delete(api.url(&format!("/products/{id}"))).send()))
        .buffer_unordered(8)
        .map(|answer| {
            anyhow::ensure!(answer?.status() == 204, "a product was not deleted");
            anyhow::Ok(())
        })
        .try_collect::<()>()
        .await?;
    stage.settled(Duration::from_secs(60)).await?;
    worker.kill().await;
    server.process.kill().await;
    Ok(found)
}

/// Creates products of `user` and returns their ids.
async fn batch(
    api: &Api,
    user: &str,
    number: usize,
    images: impl Fn(usize) -> Vec<String>,
) -> anyhow::Result<Vec<i64>> {
    let product = |number| json!({"user_id": user, "product_name": format!("{user} {number}"), "product_price": 1, "product_images": images(number)});
    let mut ids = Vec::with_capacity(number);
    for first in (0..number).step_by(1_000) {
        let products: Vec<Value> = (first..number.min(first + 1_000)).map(product).collect();
        let answer = api.post("/products:batch", &json!(products)).await?;
        anyhow::ensure!(answer.status == 200 && answer.body["failed"] == 0, "a batch is answered {}", answer.status);
        let items = answer.body["items"].as_array().context("items")?;
        ids.extend(items.iter().filter_map(|item| item["product"]["id"].as_i64()));
    }
    anyhow::ensure!(ids.len() == number, "{} of {number} products were stored", ids.len());
    Ok(ids)
}

/// Waits until all images of these products are ready; returns the time since `began`.
async fn ready(api: &Api, ids: &[i64], began: Instant, limit: Duration) -> anyhow::Result<Duration> {
    for id in ids {
        loop {
            let product = api.product(*id).await?;
            match product["status"].as_str() {
                Some("ready") => break,
                Some("failed") => anyhow::bail!("an image failed: {product}"),
                _ => anyhow::ensure!(began.elapsed() < limit, "product {id} is not ready after {limit:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(began.elapsed())
}
