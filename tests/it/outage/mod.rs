//! Engines that fail, fall silent and recover during requests and jobs; clients that are too slow.

mod database;
mod mixed;
mod queue;
mod redis;
mod slow_clients;
mod storage;

use std::{net::SocketAddr, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use pm::http;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::support::{
    Setup, TestApp,
    app::{self, admin, create_database, database_url},
    postgres_url,
    proxy::Proxy,
    rabbitmq_url, redis_url,
};

/// The proxies between the program and its engines.
pub struct Proxies {
    pub database: Proxy,
    pub redis: Proxy,
    pub rabbitmq: Proxy,
}

/// Runs `test` on PostgreSQL, Redis and RabbitMQ with a proxy before each.
pub async fn behind_proxies(test: impl AsyncFnOnce(&TestApp, &Proxies)) {
    let (Some(postgres), Some(redis), Some(rabbitmq)) = (postgres_url().await, redis_url().await, rabbitmq_url().await)
    else {
        return;
    };
    let proxies = Proxies {
        database: Proxy::start(target(&postgres, 5432)).await,
        redis: Proxy::start(target(&redis, 6379)).await,
        rabbitmq: Proxy::start(target(&rabbitmq, 5672)).await,
    };
    let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
    create_database(&postgres, &name).await;
    let settings = [
        ("DATABASE_URL", through(&proxies.database, &database_url(&postgres, &name))),
        ("REDIS_URL", through(&proxies.redis, &redis)),
        ("RABBITMQ_URL", through(&proxies.rabbitmq, &rabbitmq)),
    ];
    let settings: Vec<_> = settings.iter().map(|(variable, url)| (*variable, url.as_str())).collect();
    let run = app::run_with(Setup::Full, &settings, async |app: &TestApp| test(app, &proxies).await);
    let outcome = AssertUnwindSafe(run).catch_unwind().await;
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    admin(&postgres).await.read().execute_unprepared(&drop).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn target(url: &str, usual_port: u16) -> (String, u16) {
    let url = url::Url::parse(url).unwrap();
    (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port().unwrap_or(usual_port))
}

/// Returns the same URL with the proxy's address.
fn through(proxy: &Proxy, url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_host(Some(&proxy.address().ip().to_string())).unwrap();
    url.set_port(Some(proxy.address().port())).unwrap();
    url.into()
}

/// Starts another server on the same engines, with its own limits.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start(app: &TestApp, config: http::Config) -> Self {
        let state = http::State {
            catalog: app.app.catalog.clone(),
            blobs: app.app.blobs.clone(),
            health: app.app.health.clone(),
            images: app.app.images(),
            originals: http::Originals::default(),
            metrics: std::sync::Arc::new(String::new),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(http::serve(listener, state, config, async move {
            let _ = stopped.await;
        }));
        Self { address, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).expect("it runs still");
        self.ended.await.unwrap();
    }
}

/// Retries until `attempt` returns a value, for at most half a minute.
async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1_500 {
        if let Some(found) = attempt().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not reached: {what}");
}

/// Returns the status of `/readyz` and the names of the components that are down.
async fn readiness(app: &TestApp) -> (u16, Vec<String>) {
    let response = app.get("/readyz").await;
    let status = response.status().as_u16();
    let health: Value = response.json().await.unwrap();
    let components = health["components"].as_array().unwrap();
    let down = components.iter().filter(|component| component["status"] == "down");
    (status, down.map(|component| component["name"].as_str().unwrap().to_owned()).collect())
}

/// Checks that this is a retryable problem, and returns its code.
async fn try_again(response: reqwest::Response) -> String {
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds} s");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["request_id"]), (&503.into(), &id.into()), "{problem}");
    problem["code"].as_str().unwrap().to_owned()
}
