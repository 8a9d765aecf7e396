//! The whole program in the test's process: a server on a free port with its own database, prefix and files.

use std::{collections::BTreeMap, net::SocketAddr, panic::AssertUnwindSafe, path::Path, time::Duration};

use futures_util::FutureExt as _;
use pm::{
    app::App,
    config::{self, Flags},
    db::{Config, Database, Postgres, migrate},
    worker::Worker,
};
use sea_orm::ConnectionTrait as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{contract, postgres_url, rabbitmq_url, redis_url};

/// The engines of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// SQLite, the in-process cache, the queue in the database.
    Embedded,
    /// PostgreSQL, Redis and RabbitMQ.
    Full,
}

/// The running program. Its server runs no jobs: tests run them by [`TestApp::drain`] or start workers.
pub struct TestApp {
    pub app: App,
    pub setup: Setup,
    pub address: SocketAddr,
    pub client: reqwest::Client,
    pub environment: BTreeMap<String, String>,
    worker: Worker,
    server: Option<(CancellationToken, JoinHandle<()>)>,
    resources: Resources,
}

/// Resources that are removed at the end.
struct Resources {
    directory: TempDir,
    postgres: Option<(String, String)>,
    redis: Option<(String, String)>,
    rabbitmq: Option<(String, String)>,
    /// All ids that the installation has had: its queues are named after them.
    installations: Vec<String>,
}

/// Runs `test` on a new program and removes everything afterwards, also if the test fails. Skipped without the services
/// of the set-up.
pub async fn run(setup: Setup, test: impl AsyncFnOnce(&TestApp)) {
    run_with(setup, &[], test).await;
}

/// As [`run`], with additional settings as environment variables.
pub async fn run_with(setup: Setup, settings: &[(&str, &str)], test: impl AsyncFnOnce(&TestApp)) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let extend = async |environment: &mut BTreeMap<String, String>| {
        environment.extend(settings);
        Some(())
    };
    run_prepared(setup, extend, test).await;
}

/// As [`run`], after `prepare` has changed the settings. Keeps the value of `prepare` until everything is removed; if
/// it is `None`, a service is missing and the test is skipped.
pub async fn run_prepared<T>(
    setup: Setup,
    prepare: impl AsyncFnOnce(&mut BTreeMap<String, String>) -> Option<T>,
    test: impl AsyncFnOnce(&TestApp),
) {
    let Some(resources) = Resources::reserve(setup).await else { return };
    let mut environment = resources.environment();
    let Some(_kept) = prepare(&mut environment).await else { return resources.remove().await };
    let outcome = AssertUnwindSafe(async {
        let mut app = TestApp::start(setup, environment, resources).await;
        let outcome = AssertUnwindSafe(test(&app)).catch_unwind().await;
        app.stop().await;
        (app.resources, outcome)
    })
    .await;
    let (resources, outcome) = outcome;
    resources.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl TestApp {
    async fn start(setup: Setup, environment: BTreeMap<String, String>, mut resources: Resources) -> Self {
        let app = build(&environment, resources.directory.path()).await;
        resources.installations.push(app.catalog.installation().to_string());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = app.clone();
        let token = stop.clone();
        let running = tokio::spawn(async move { Box::pin(server.serve(listener, 0, token)).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let worker = app.worker(2).unwrap();
        Self { app, setup, address, client, environment, worker, server: Some((stop, running)), resources }
    }

    /// Opens the program as another process would: the same settings, its own connections.
    pub async fn another(&self) -> App {
        build(&self.environment, self.resources.directory.path()).await
    }

    /// Returns the directory of the program's files.
    pub fn directory(&self) -> &Path {
        self.resources.directory.path()
    }

    /// Returns the URL of `path` on the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        described("GET", path, self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "GET {path}");
        response.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        described("POST", path, self.client.post(self.url(path)).json(body).send().await.unwrap()).await
    }

    /// Creates a product with these images and returns its JSON.
    pub async fn create(&self, images: &[String]) -> Value {
        let body = serde_json::json!({
            "user_id": "seller", "product_name": "Sample Product", "product_description": "A test product.",
            "product_images": images, "product_price": 100.0
        });
        let response = self.post("/products", &body).await;
        assert_eq!(response.status(), 201);
        response.json().await.unwrap()
    }

    /// Returns the product from the API.
    pub async fn product(&self, id: &Value) -> Value {
        self.get_json(&format!("/products/{id}")).await
    }

    /// Runs every due job in this process; returns the number of attempts.
    pub async fn drain(&self) -> usize {
        let mut attempts = 0;
        loop {
            attempts += self.worker.drain().await.unwrap();
            if self.due().await == 0 {
                return attempts;
            }
            // The server's relay locks a row while it publishes the job.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Claims a due job as a worker does, and keeps it; `None` if no job is due.
    pub async fn claim(&self) -> Option<pm::catalog::Claimed> {
        self.claim_by(&self.app).await
    }

    /// As [`claim`](Self::claim), by another process.
    pub async fn claim_by(&self, app: &App) -> Option<pm::catalog::Claimed> {
        loop {
            let claimed = app.catalog.claim(pm::catalog::Due::any()).await.unwrap().claimed();
            if claimed.is_some() || self.due().await == 0 {
                return claimed;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn due(&self) -> i64 {
        let now = self.app.catalog.now().await.unwrap();
        self.number(&format!("SELECT count(*) FROM jobs WHERE state = 'queued' AND run_at <= {}", now.0)).await
    }

    /// Starts a consumer as `pm worker` does; cancel the token to stop it, and await the handle.
    pub async fn start_worker(&self) -> (CancellationToken, JoinHandle<()>) {
        let app = self.another().await;
        let stop = CancellationToken::new();
        let token = stop.clone();
        (stop, tokio::spawn(async move { app.work(2, None, token).await.unwrap() }))
    }

    /// Polls until no image of the product is in progress; fails after a minute.
    pub async fn settled(&self, id: &Value) -> Value {
        for _ in 0..3_000 {
            let product = self.product(id).await;
            if product["status"] != "processing" {
                return product;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("product {id} is still in progress: {}", self.product(id).await);
    }

    /// Executes a statement, to do what the API cannot, such as changing a job's times.
    pub async fn sql(&self, statement: &str) {
        self.app.database.read().execute_unprepared(statement).await.unwrap();
    }

    /// Queries the database for one number.
    pub async fn number(&self, sql: &str) -> i64 {
        let connection = self.app.database.read();
        let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
        connection.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }

    /// Makes every waiting job due now, whatever its backoff.
    pub async fn let_time_pass(&self) {
        self.sql("UPDATE jobs SET run_at = 0 WHERE state = 'queued'").await;
    }

    /// Takes all jobs from their workers, as if each worker had ended.
    pub async fn let_workers_die(&self) -> usize {
        self.take_leases(true).await
    }

    /// Takes all jobs from their workers, as if no worker had sent a heartbeat for a whole lease.
    pub async fn let_leases_run_out(&self) -> usize {
        self.take_leases(false).await
    }

    async fn take_leases(&self, holder_ended: bool) -> usize {
        let catalog = &self.app.catalog;
        let leases = catalog.job_leases().await.unwrap();
        let lapsed: Vec<_> = leases.into_iter().map(|lease| pm::domain::Lapsed { lease, holder_ended }).collect();
        catalog.take_jobs(&lapsed).await.unwrap()
    }

    async fn stop(&mut self) {
        if let Some((stopper, server)) = self.server.take() {
            stopper.cancel();
            server.await.unwrap();
        }
        self.resources.installations.push(self.app.catalog.installation().to_string());
    }
}

/// Returns the same response after a check against the OpenAPI description.
pub async fn described(method: &str, path: &str, response: reqwest::Response) -> reqwest::Response {
    let (status, headers) = (response.status(), response.headers().clone());
    let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
    let body = response.bytes().await.unwrap();
    let plain = if headers.contains_key("content-encoding") { &b""[..] } else { &body[..] };
    contract::check(method, path, status.as_u16(), kind, plain);
    let mut again = http::Response::new(body);
    (*again.status_mut(), *again.headers_mut()) = (status, headers.clone());
    again.into()
}

pub async fn build(environment: &BTreeMap<String, String>, directory: &Path) -> App {
    let settings = config::load(&Flags::default(), directory, environment.clone()).unwrap();
    App::build(settings).await.unwrap()
}

impl Resources {
    async fn reserve(setup: Setup) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mut resources = Self { directory, postgres: None, redis: None, rabbitmq: None, installations: Vec::new() };
        if setup == Setup::Full {
            let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
            let (postgres, redis, rabbitmq) = (postgres_url().await?, redis_url().await?, rabbitmq_url().await?);
            create_database(&postgres, &name).await;
            resources.postgres = Some((postgres, name.clone()));
            resources.redis = Some((redis, name.clone()));
            resources.rabbitmq = Some((rabbitmq, name));
        }
        Some(resources)
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([
            ("PM_DATA_DIR".to_owned(), self.directory.path().join("data").display().to_string()),
            ("PM_FETCH_ALLOW".to_owned(), "127.0.0.0/8".to_owned()),
            ("PM_AUTO_MIGRATE".to_owned(), "true".to_owned()),
            ("PM_BACKUP_PASSPHRASE".to_owned(), "correct horse battery staple".to_owned()),
        ]);
        if let Some((url, name)) = &self.postgres {
            all.insert("DATABASE_URL".into(), database_url(url, name));
            all.insert("PM_SECRET_KEY".into(), "a key of the tests with 32 characters".into());
        }
        if let Some((url, prefix)) = &self.redis {
            all.extend([("REDIS_URL".into(), url.clone()), ("PM_REDIS_PREFIX".into(), prefix.clone())]);
        }
        if let Some((url, queue)) = &self.rabbitmq {
            all.extend([("RABBITMQ_URL".into(), url.clone()), ("PM_RABBITMQ_QUEUE".into(), queue.clone())]);
        }
        all
    }

    async fn remove(self) {
        if let Some((url, name)) = &self.postgres {
            let admin = admin(url).await;
            admin.read().execute_unprepared(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        }
        if let Some((url, prefix)) = &self.redis {
            remove_keys(url, prefix).await;
        }
        if let Some((url, prefix)) = &self.rabbitmq {
            for installation in &self.installations {
                remove_queues(url, &format!("{prefix}.{installation}")).await;
            }
        }
    }
}

/// A new database on the server at `url`, for tests that do not need the whole program.
pub async fn create_database(url: &str, name: &str) {
    admin(url).await.read().execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
}

/// Returns the URL of database `name` on the server at `url`.
pub fn database_url(url: &str, name: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_path(name);
    url.into()
}

pub async fn admin(url: &str) -> Database {
    Database::connect(&Config::Postgres(Postgres { max_connections: 1, ..Postgres::new(url) })).await.unwrap()
}

/// Returns whether the schema of `app` is complete.
pub async fn schema_is_current(app: &App) -> bool {
    migrate::is_current(&app.database).await.unwrap()
}

async fn remove_keys(url: &str, prefix: &str) {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{prefix}:*");
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(1_000)
            .query_async(&mut connection)
            .await
            .unwrap();
        if !keys.is_empty() {
            let _: u64 = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.unwrap();
        }
        if next == 0 {
            return;
        }
        cursor = next;
    }
}

async fn remove_queues(url: &str, queue: &str) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for name in [queue.to_owned(), format!("{queue}.unreadable")] {
        channel.queue_delete(name.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    }
}
