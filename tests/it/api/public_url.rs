//! Servers with different public URLs on the same engines: each returns its own links, from the cache as well.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::wire;
use crate::support::{
    Origin, Setup, TestApp,
    app::{self, build},
    images,
};

const ONE: &str = "https://one.example";
const TWO: &str = "https://two.example";

/// A server with its own public URL.
struct Server {
    url: &'static str,
    address: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(app: &TestApp, url: &'static str) -> Self {
        let mut environment = app.environment.clone();
        environment.insert("PM_PUBLIC_URL".into(), url.into());
        let server = build(&environment, app.directory()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move { Box::pin(server.serve(listener, 0, stopped)).await.unwrap() });
        Self { url, address, stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// Reads a product and checks that it has only links of this server.
    async fn read(&self, path: &str) -> wire::Answer {
        let answer = wire::send(self.address, "GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let product = answer.json();
        let images = format!("{}/images/", self.url);
        let links = [&product["compressed_product_images"][0], &product["images"][0]["renditions"][0]["url"]];
        for link in links.map(|link| link.as_str().unwrap()) {
            assert!(link.starts_with(&images), "{} returned the link {link}", self.url);
        }
        answer
    }

    /// Reads a product until it comes from the cache.
    async fn hit(&self, path: &str) -> wire::Answer {
        for _ in 0..200 {
            let answer = self.read(path).await;
            if answer.header("x-cache") == "hit" {
                return answer;
            }
        }
        panic!("{path} is never a cache hit");
    }

    async fn rename(&self, path: &str, name: &str) {
        let body = json!({ "product_name": name }).to_string();
        let kind = [("Content-Type", "application/merge-patch+json")];
        let answer = wire::send(self.address, "PATCH", path, &kind, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Creates a product with a ready image; returns its path.
async fn ready_product(app: &TestApp) -> String {
    let origin = Origin::start().await;
    origin.serve("/a.png", "image/png", images::png(64, 48));
    let id: Value = app.create(&[origin.url("/a.png")]).await["id"].clone();
    app.drain().await;
    format!("/products/{id}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_with_another_public_url_returns_no_cached_links() {
    app::run(Setup::Full, async |app: &TestApp| {
        let path = ready_product(app).await;
        let before = Server::start(app, ONE).await;
        let old = before.hit(&path).await;
        before.stop().await;

        let after = Server::start(app, TWO).await;
        let first = after.read(&path).await;
        assert_eq!(first.header("x-cache"), "miss");
        assert_ne!(first.header("etag"), old.header("etag"));
        let conditional = [("If-None-Match", old.header("etag"))];
        assert_eq!(wire::send(after.address, "GET", &path, &conditional, b"").await.status, 200);
        let second = after.hit(&path).await;
        assert_eq!((first.body.as_slice(), first.header("etag")), (second.body.as_slice(), second.header("etag")));
        after.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_different_public_urls_return_their_own_current_products() {
    app::run(Setup::Full, async |app: &TestApp| {
        let path = ready_product(app).await;
        let (one, two) = (Server::start(app, ONE).await, Server::start(app, TWO).await);
        for round in 0..10 {
            let (writer, other) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
            other.hit(&path).await;
            let name = format!("round {round}");
            writer.rename(&path, &name).await;
            for server in [other, writer, other] {
                assert_eq!(server.read(&path).await.json()["product_name"], name);
            }
            writer.hit(&path).await;
        }
        let (first, second) = (one.hit(&path).await, two.hit(&path).await);
        assert_ne!(first.header("etag"), second.header("etag"));
        one.stop().await;
        two.stop().await;
    })
    .await;
}
