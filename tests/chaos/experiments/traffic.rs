//! Clients: create products at a steady rate and record every response; queue images for workers.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::MissedTickBehavior;

use crate::{api::Api, images, ledger::Ledger, origin::Origin};

/// Options of the traffic.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Prefix of every product's name.
    pub name: &'static str,
    /// Requests per second, whether or not earlier ones were answered.
    pub per_second: u32,
    /// Duration.
    pub lasts: Duration,
    /// The images of each product.
    pub images: Vec<String>,
}

/// The time of each response, sorted.
#[derive(Clone, Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Returns the 99th percentile.
    pub fn p99(&self) -> Duration {
        let place = (self.0.len() * 99).div_ceil(100).saturating_sub(1);
        self.0.get(place).copied().unwrap_or_default()
    }

    /// Returns the number of responses.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Sends products at this rate, each once only; the ledger counts refused ones.
pub async fn post(ledger: &Ledger, api: &Api, pace: &Pace) -> Latencies {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / pace.per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = pace.per_second as f64 * pace.lasts.as_secs_f64();
    let starts = stream::unfold((ticks, 0_u64), |(mut ticks, number)| async move {
        ticks.tick().await;
        Some((number, (ticks, number + 1)))
    });
    let sent = starts.take(count as usize).map(|number| async move {
        let began = Instant::now();
        let answer = ledger.create(api, &format!("{} {number}", pace.name), &pace.images).await;
        answer.is_ok().then(|| began.elapsed())
    });
    // Clients do not wait for each other.
    let answered: Vec<_> = sent.buffer_unordered(2_000).collect().await;
    let mut latencies: Vec<_> = answered.into_iter().flatten().collect();
    latencies.sort_unstable();
    Latencies(latencies)
}

/// Queues this many different images, five per product.
pub async fn queue_images(api: &Api, origin: &Origin, name: &str, count: u32) -> anyhow::Result<()> {
    let path = |number: u32| format!("/{}/{number}.jpg", name.replace(' ', "-"));
    let addresses: Vec<_> = (0..count)
        .map(|number| {
            origin.serve(&path(number), "image/jpeg", images::numbered_jpeg(fastrand::u32(..), 96, 64));
            origin.url(&path(number))
        })
        .collect();
    let products = addresses.chunks(5).enumerate();
    let requests = products
        .map(|(number, images)| async move { api.create(&format!("{name} {number}"), images).await.map(|_| ()) });
    stream::iter(requests).buffer_unordered(8).try_collect().await
}

/// Returns the URL of one small image.
pub fn one_image(origin: &Origin) -> String {
    origin.serve("/one.jpg", "image/jpeg", images::jpeg(96, 64));
    origin.url("/one.jpg")
}
