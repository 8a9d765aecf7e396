//! Tests of the HTTP API over real sockets, with embedded engines.

mod limits;
mod resources;
mod stopping;
mod traces;

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::{Config, ImageDelivery, Originals, Placeholder, State, serve};
use crate::{
    blobs::{self, Blobs},
    cache::{self, Cache},
    catalog::{self, Catalog, Engines},
    db::{self, Database},
    domain::InstallationId,
    health::Health,
    queue::{self, Queue},
    resize::{ResizeConfig, Resizer},
};

/// A server on a free port with its own directory.
struct Server {
    address: SocketAddr,
    blobs: Blobs,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
    _directory: TempDir,
}

/// A response; the names of its headers are in lower case.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// Returns a catalog with embedded engines and its files in `directory`.
pub(super) async fn catalog_in(directory: &Path) -> (Catalog, Health) {
    let path = directory.join("pm.db");
    let database = Database::connect(&db::Config::Sqlite { path: path.clone() }).await.expect("a database");
    db::migrate::up(&database, None).await.expect("a schema");
    let cache = Cache::connect(&cache::Engine::Memory {
        max_bytes: 1 << 20,
        database: path,
        lifetimes: cache::Lifetimes::default(),
    })
    .await
    .expect("a cache");
    let (installation, id) = tokio::sync::watch::channel(InstallationId::new(uuid::Uuid::nil()));
    let queue = Queue::connect(&queue::Engine::Database, &database.read(), id).await.expect("a queue");
    let engine = blobs::Engine::Disk { directory: directory.join("blobs") };
    let blobs = Blobs::connect(&engine).await.expect("a store");
    let engines = Engines {
        database: database.clone(),
        cache: cache.clone(),
        queue: queue.clone(),
        blobs: blobs.clone(),
        installation,
    };
    let catalog = Catalog::new(catalog::Config { auto_users: true, ..catalog::Config::default() }, engines);
    (catalog, Health { database, cache, queue, blobs })
}

impl Server {
    async fn start() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        Self::over(config, Arc::new(|| "pm_up 1\n".to_owned())).await
    }

    async fn over(config: Config, metrics: super::RenderMetrics) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (catalog, health) = catalog_in(directory.path()).await;
        let blobs = health.blobs.clone();
        let resizer = Resizer::new(ResizeConfig::default(), catalog.clone(), blobs.clone());
        let images = ImageDelivery { resizer, keys: None, placeholder: Placeholder::None };
        let originals = Originals::Answered;
        let state = State { images, originals, catalog, blobs: blobs.clone(), health, metrics };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve(listener, state, config, async move {
            let _ = stopped.await;
        }));
        Self { address, blobs, stop: Some(stop), ended, _directory: directory }
    }

    fn stop(&mut self) {
        let stop = self.stop.take().expect("stopped once");
        stop.send(()).expect("the server runs");
    }

    /// Waits until the server has stopped, at most 20 seconds.
    async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(20), self.ended)
            .await
            .expect("the server ends")
            .expect("without a panic");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends a request over a new connection; `head` is the request line and headers without `Host`.
    async fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let head = format!("{}\r\nHost: pm\r\nConnection: close\r\n\r\n", head.replace('\n', "\r\n"));
        stream.write_all(head.as_bytes()).await.expect("sent");
        // The server may refuse a body before it is fully sent.
        let _ = stream.write_all(body).await;
        Answer::last_of(stream).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), b"").await
    }

    async fn post(&self, path: &str, json: &str) -> Answer {
        let head = format!("POST {path} HTTP/1.1\nContent-Type: application/json\nContent-Length: {}", json.len());
        self.send(&head, json.as_bytes()).await
    }
}

impl Answer {
    /// Reads a response until the server closes the connection.
    async fn last_of(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
            .await
            .expect("the connection is closed")
            .expect("it is not reset");
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).expect("text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status").parse().expect("a number");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Self { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Asserts that the response is a problem with this status and code; returns its JSON.
    fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["code"], code);
        assert_eq!(json["type"], format!("/problems/{code}"));
        assert_eq!(json["status"], status);
        assert_eq!(json["request_id"], self.header("x-request-id"));
        json
    }
}

const PRODUCT: &str = r#"{"user_id": "1234-5678-9012", "product_name": "Sample Product",
    "product_description": "A test product.", "product_images": [], "product_price": 100.0}"#;
