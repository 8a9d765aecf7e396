//! The clients of the soak: each sends requests of every kind, one after the other, chosen by its seed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use parking_lot::{Mutex, MutexGuard};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::IMAGES;
use crate::{api::Api, images, origin::Origin};

/// Maximum number of products: each new one replaces another, so that the data keep their size.
const MAX_PRODUCTS: usize = 1_000;
/// Pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(25);
const WORDS: [&str; 12] =
    ["red", "green", "blue", "lamp", "chair", "table", "oak", "steel", "glass", "plate", "bowl", "ring"];
const SORTS: [&str; 6] =
    ["product_price", "-product_price", "product_name", "-product_name", "created_at", "-created_at"];

/// The existing products.
#[derive(Debug, Default)]
pub struct Products(Mutex<Vec<i64>>);

impl Products {
    fn lock(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock()
    }

    fn one(&self, random: &mut fastrand::Rng) -> Option<i64> {
        let all = self.lock();
        (!all.is_empty()).then(|| all[random.usize(..all.len())])
    }

    /// Adds a product; returns one to delete if there are too many.
    fn add(&self, id: i64, random: &mut fastrand::Rng) -> Option<i64> {
        let mut all = self.lock();
        all.push(id);
        (all.len() > MAX_PRODUCTS).then(|| {
            let place = random.usize(..all.len());
            all.swap_remove(place)
        })
    }
}

/// One client.
pub struct Client<'a> {
    api: &'a Api,
    origin: &'a Origin,
    products: &'a Products,
    random: fastrand::Rng,
}

impl<'a> Client<'a> {
    /// Creates a client that chooses by `random`.
    pub fn new(api: &'a Api, origin: &'a Origin, products: &'a Products, random: fastrand::Rng) -> Self {
        Self { api, origin, products, random }
    }

    /// Sends requests until the deadline `until`.
    pub async fn work(mut self, until: Instant, requests: &AtomicU64) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.one_request().await?;
            requests.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn one_request(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.products.one(&mut self.random) else { return self.create().await };
        match self.random.u32(..100) {
            0..15 => self.create().await,
            15..18 => self.batch().await,
            18..45 => self.send(self.request(Method::GET, &format!("/products/{id}"))).await,
            45..60 => self.list().await,
            60..70 => self.search().await,
            70..82 => self.change(id).await,
            82..86 => self.upload(id).await,
            86..90 => self.follow().await,
            90..94 => self.send(self.json(Method::POST, "/products", "{\"user_id\": 1")).await,
            94..97 => self.send(self.request(Method::GET, "/readyz")).await,
            _ => self.send(self.request(Method::GET, "/metrics")).await,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let codings = ["identity", "gzip", "br"];
        let coding = codings[path.len() % codings.len()];
        let request = self.api.client().request(method, self.api.url(path));
        request.header("accept-encoding", coding)
    }

    /// Builds a request with a JSON body.
    fn json(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(method, path).header("content-type", "application/json").body(body)
    }

    /// Sends a request; a product that another client has deleted meanwhile is no error.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<()> {
        self.answer(request).await.map(|_| ())
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Vec<u8>> {
        let response = request.send().await.context("a request of the soak")?;
        let status = response.status();
        let body = response.bytes().await?;
        // 503 is a valid answer under load.
        anyhow::ensure!(
            !status.is_server_error() || status == 503,
            "a request of the soak is answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body.to_vec())
    }

    fn new_product(&mut self) -> Value {
        let mut words = WORDS;
        self.random.shuffle(&mut words);
        let mut images = Vec::new();
        if self.random.u32(..4) == 0 {
            images.push(self.origin.url(&format!("/{}.jpg", self.random.u32(..IMAGES))));
        }
        json!({
            "user_id": format!("user-{}", self.random.u32(..40)),
            "product_name": format!("{} {}", words[..3].join(" "), self.random.u32(..)),
            "product_description": "All of it. ".repeat(self.random.usize(1..120)),
            "product_images": images, "product_price": f64::from(self.random.u32(1..100_000)) / 100.0,
        })
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        let product = self.new_product();
        let body = self.answer(self.json(Method::POST, "/products", product.to_string())).await?;
        let made: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.keep(made["id"].as_i64()).await
    }

    async fn keep(&mut self, id: Option<i64>) -> anyhow::Result<()> {
        let Some(too_many) = id.and_then(|id| self.products.add(id, &mut self.random)) else { return Ok(()) };
        self.send(self.request(Method::DELETE, &format!("/products/{too_many}"))).await
    }

    /// Sends a batch of random size, so that statements of every length are sent.
    async fn batch(&mut self) -> anyhow::Result<()> {
        let count = self.random.usize(1..30);
        let products: Vec<Value> = (0..count).map(|_| self.new_product()).collect();
        let body = self.answer(self.json(Method::POST, "/products:batch", json!(products).to_string())).await?;
        let made: Value = serde_json::from_slice(&body).unwrap_or_default();
        let ids: Vec<i64> = ids_in(&made);
        for id in ids {
            self.keep(Some(id)).await?;
        }
        Ok(())
    }

    async fn list(&mut self) -> anyhow::Result<()> {
        let mut path = format!("/products?limit={}", self.random.u32(1..100));
        if self.random.bool() {
            path += &format!("&sort={}", SORTS[self.random.usize(..SORTS.len())]);
        }
        if self.random.u32(..3) == 0 {
            path += &format!("&user_id=user-{}", self.random.u32(..40));
        }
        if self.random.u32(..3) == 0 {
            path += &format!("&name={}", WORDS[self.random.usize(..WORDS.len())]);
        }
        self.send(self.request(Method::GET, &path)).await
    }

    async fn search(&mut self) -> anyhow::Result<()> {
        let mut words = WORDS;
        self.random.shuffle(&mut words);
        let words = words[..self.random.usize(1..4)].join("+");
        let path = format!("/products?q={words}&limit={}", self.random.u32(1..50));
        self.send(self.request(Method::GET, &path)).await
    }

    async fn change(&mut self, id: i64) -> anyhow::Result<()> {
        let patch = json!({"product_price": f64::from(self.random.u32(1..100_000)) / 100.0});
        let request = self.request(Method::PATCH, &format!("/products/{id}")).body(patch.to_string());
        self.send(request.header("content-type", "application/merge-patch+json")).await
    }

    async fn upload(&mut self, id: i64) -> anyhow::Result<()> {
        let image = images::numbered_jpeg(self.random.u32(..IMAGES), 160, 120);
        let mut body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n".to_vec();
        body.extend_from_slice(&image);
        body.extend_from_slice(b"\r\n--b--\r\n");
        let request = self.api.client().post(self.api.url(&format!("/products/{id}/images")));
        self.send(request.header("content-type", "multipart/form-data; boundary=b").body(body)).await
    }

    /// Follows events for a moment and disconnects.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let stream = self.api.client().get(self.api.url("/events")).send().await.context("a stream of events")?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stream);
        Ok(())
    }
}

/// Returns the products' ids from the response to a batch.
fn ids_in(answer: &Value) -> Vec<i64> {
    let items = answer["items"].as_array().or_else(|| answer["results"].as_array()).or_else(|| answer.as_array());
    let ids = items.into_iter().flatten().map(|item| item["id"].as_i64().or_else(|| item["product"]["id"].as_i64()));
    ids.flatten().collect()
}
