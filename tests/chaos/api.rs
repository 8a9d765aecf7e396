//! A client of the HTTP API that keeps to what a client sees: statuses and bodies.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Talks to one server; clones share their connections.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    client: reqwest::Client,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, `null` if it is no JSON.
    pub body: Value,
}

/// A request that has no answer after this long has none.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const POOL_IDLE_LIMIT: Duration = Duration::from_secs(2);

impl Api {
    /// A client of the server at `address`, which need not be there yet.
    pub fn new(address: SocketAddr) -> Self {
        // The server may be killed at any time; a request over a connection that it left behind would fail by chance.
        let client = reqwest::Client::builder().no_proxy().timeout(REQUEST_LIMIT).pool_idle_timeout(POOL_IDLE_LIMIT);
        let client = client.redirect(reqwest::redirect::Policy::none()).build();
        Self { address, client: client.expect("a client without TLS roots needs nothing of the machine") }
    }

    /// The client behind it, for requests of another kind.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The address of `path` on the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What GET `path` answers.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        Answer::of(self.client.get(self.url(path)).send().await?).await
    }

    /// What POST `path` answers to `body`.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        Answer::of(self.client.post(self.url(path)).json(body).send().await?).await
    }

    /// The product of this number.
    ///
    /// # Errors
    /// If there is no answer or no such product.
    pub async fn product(&self, id: i64) -> anyhow::Result<Value> {
        let answer = self.get(&format!("/products/{id}")).await?;
        anyhow::ensure!(answer.status == 200, "GET /products/{id} answers {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Creates a product; answers its body.
    ///
    /// # Errors
    /// If it is not created.
    pub async fn create(&self, name: &str, images: &[String]) -> anyhow::Result<Value> {
        let answer = self.post("/products", &product(name, images)).await?;
        anyhow::ensure!(answer.status == 201, "POST /products answers {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    /// If it does not within `limit`.
    pub async fn up(&self, limit: Duration) -> anyhow::Result<()> {
        let asking = async {
            while !self.get("/healthz").await.is_ok_and(|answer| answer.status == 200) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(limit, asking).await.with_context(|| format!("no server at {}", self.address))
    }
}

impl Answer {
    async fn of(response: reqwest::Response) -> reqwest::Result<Self> {
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        Ok(Self { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// The number of the product in the body.
    pub fn id(&self) -> Option<i64> {
        self.body["id"].as_i64()
    }
}

/// A product as a client sends it.
pub fn product(name: &str, images: &[String]) -> Value {
    json!({
        "user_id": "seller", "product_name": name, "product_description": format!("This is {name}."),
        "product_images": images, "product_price": 12.5,
    })
}
