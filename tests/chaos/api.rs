//! A client of the HTTP API that looks only at statuses and bodies.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Sends requests to one server; clones share their connections.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    client: reqwest::Client,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body as JSON; `null` if it is not JSON.
    pub body: Value,
}

/// Timeout of a request.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const POOL_IDLE_LIMIT: Duration = Duration::from_secs(2);

impl Api {
    /// Returns a client of the server at `address`; the server need not be running yet.
    pub fn new(address: SocketAddr) -> Self {
        // The server may be killed at any time; a request on a stale kept-alive connection would fail by chance.
        let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_LIMIT).pool_idle_timeout(POOL_IDLE_LIMIT);
        let client = client.redirect(reqwest::redirect::Policy::none()).build();
        Self { address, client: client.expect("a client without TLS roots needs nothing of the machine") }
    }

    /// Returns the underlying HTTP client.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Returns the URL of `path` on the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the response to GET `path`.
    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        Answer::of(self.client.get(self.url(path)).send().await?).await
    }

    /// Returns the response to POST `path` with `body`.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        Answer::of(self.client.post(self.url(path)).json(body).send().await?).await
    }

    /// Returns the product with this id.
    pub async fn product(&self, id: i64) -> anyhow::Result<Value> {
        let answer = self.get(&format!("/products/{id}")).await?;
        anyhow::ensure!(answer.status == 200, "GET /products/{id} answers {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Creates a product; returns its body.
    pub async fn create(&self, name: &str, images: &[String]) -> anyhow::Result<Value> {
        let answer = self.post("/products", &product(name, images)).await?;
        anyhow::ensure!(answer.status == 201, "POST /products answers {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Waits until the server answers.
    pub async fn up(&self, limit: Duration) -> anyhow::Result<()> {
        let asking = async {
            while !self.get("/healthz").await.is_ok_and(|answer| answer.status == 200) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, asking).await.with_context(|| format!("no server answers at {}", self.address))
    }
}

impl Answer {
    async fn of(response: reqwest::Response) -> reqwest::Result<Self> {
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        Ok(Self { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// Returns the product's id from a body.
    pub fn id(&self) -> Option<i64> {
        self.body["id"].as_i64()
    }
}

/// Returns the body of a request that creates a product.
pub fn product(name: &str, images: &[String]) -> Value {
    json!({
        "user_id": "seller", "product_name": name, "product_description": format!("This is {name}."),
        "product_images": images, "product_price": 12.5,
    })
}
