//! The environment of one experiment: its directory, database, keys, queue, and `pm` processes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use parking_lot::{Mutex, MutexGuard};
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection, QueryResult, Statement};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    api::Api,
    engines::{Engines, Postgres, RabbitMq, Redis, programs},
    processes::{Process, Spec, tree},
    program::{self, Server},
    proxy::Proxy,
};

/// The engines of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Setup {
    /// SQLite, the in-process cache, the queue in the database.
    #[value(name = "embedded", aliases = ["e", "E"])]
    Embedded,
    /// PostgreSQL, Redis and RabbitMQ.
    #[value(name = "full", aliases = ["f", "F"])]
    Full,
}

/// The size of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A few seconds: it shows that the experiment works and finds gross faults.
    Short,
    /// The size that the promise states.
    Full,
}

/// The environment of one experiment.
pub struct Stage {
    /// The set-up.
    pub setup: Setup,
    /// The size.
    pub form: Form,
    /// Seed of all random choices in the experiment.
    pub seed: u64,
    /// The name of its database, its keys and its queue.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    engines: Option<Arc<Engines>>,
    environment: Mutex<BTreeMap<String, String>>,
    address: SocketAddr,
    database: OnceCell<DatabaseConnection>,
    program: OnceLock<PathBuf>,
}

/// The proxies between the program and its engines.
pub struct Proxies {
    /// To PostgreSQL.
    pub postgres: Proxy,
    /// To Redis.
    pub redis: Proxy,
    /// To RabbitMQ.
    pub rabbitmq: Proxy,
}

/// Time limit for `pm serve` and `pm worker` to start, also on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

impl Setup {
    /// `E` or `F`.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Embedded => "E",
            Self::Full => "F",
        }
    }
}

impl Form {
    /// `short` or `full`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Full => "full",
        }
    }
}

impl Stage {
    /// Creates a stage below `root` with an empty, complete schema.
    pub async fn set(
        (setup, form, seed): (Setup, Form, u64),
        promise: &str,
        root: &Path,
        engines: Option<Arc<Engines>>,
    ) -> anyhow::Result<Self> {
        let name = format!("{}_{}", promise.to_lowercase(), setup.letter().to_lowercase());
        let directory = root.join(&name);
        std::fs::create_dir_all(&directory).context("making a directory")?;
        let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
        let environment = Mutex::new(BTreeMap::new());
        let (database, program) = (OnceCell::new(), OnceLock::new());
        let stage = Self { setup, form, seed, name, directory, engines, environment, address, database, program };
        let data = stage.directory.join("data").display().to_string();
        let usual = [
            ("HOME", stage.directory.display().to_string()),
            ("PM_DATA_DIR", data),
            ("PM_BACKUP_PASSPHRASE", "correct horse battery staple".to_owned()),
            ("PM_FETCH_ALLOW", "127.0.0.0/8".to_owned()),
            // All images come from one host.
            ("PM_FETCH_PER_HOST", "64".to_owned()),
            ("PM_LISTEN", address.to_string()),
            ("PM_LOG_FORMAT", "json".to_owned()),
            ("PM_REDIS_PREFIX", stage.name.clone()),
            ("PM_RABBITMQ_QUEUE", stage.queue()),
        ];
        usual.into_iter().for_each(|(name, value)| stage.configure(name, value));
        if setup == Setup::Full {
            let engines = stage.engines();
            engines.postgres.create_database(&stage.name).await?;
            stage.configure("DATABASE_URL", Postgres::url(engines.postgres.address(), &stage.name));
            stage.configure("PM_SECRET_KEY", "a key of the experiments with 32 characters");
            stage.configure("REDIS_URL", Redis::url(engines.redis.address()));
            stage.configure("RABBITMQ_URL", RabbitMq::url(engines.rabbitmq.address()));
        }
        stage.pm(&["migrate", "up"]).await?;
        Ok(stage)
    }

    /// Returns the engines of the full set-up.
    ///
    /// # Panics
    /// On the embedded set-up, which has none.
    pub fn engines(&self) -> &Engines {
        self.engines.as_deref().expect("an experiment with engines runs only on the full set-up")
    }

    /// Returns a random generator, the same on each call with the same `purpose`.
    pub fn random(&self, purpose: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(purpose))
    }

    /// Returns the value for the form.
    pub fn size<T>(&self, short: T, full: T) -> T {
        match self.form {
            Form::Short => short,
            Form::Full => full,
        }
    }

    /// Returns the broker's name of the queue that `PM_RABBITMQ_QUEUE` names.
    pub async fn queue_at_broker(&self, prefix: &str) -> anyhow::Result<String> {
        Ok(format!("{prefix}.{}", self.installation().await?))
    }

    /// Returns the installation's id.
    pub async fn installation(&self) -> anyhow::Result<String> {
        let rows = self.rows("SELECT id FROM installation").await?;
        Ok(rows.first().context("no installation")?.try_get_by_index(0)?)
    }

    /// Returns the prefix of the installation's queues.
    pub fn queue(&self) -> String {
        format!("{}.images", self.name)
    }

    /// Sets an environment variable for all processes started later.
    pub fn configure(&self, name: &str, value: impl Into<String>) {
        self.variables().insert(name.to_owned(), value.into());
    }

    /// Removes an environment variable for all processes started later.
    pub fn unset(&self, name: &str) {
        self.variables().remove(name);
    }

    /// Runs cargo's latest build from now on, whatever `PM_CHAOS_BINARY` names.
    pub fn run_debug_build(&self) {
        self.program.get_or_init(program::built);
    }

    /// Puts a proxy before each engine for all processes started later.
    pub async fn put_proxies(&self) -> Proxies {
        let engines = self.engines();
        let proxies = Proxies {
            postgres: Proxy::start(engines.postgres.address()).await,
            redis: Proxy::start(engines.redis.address()).await,
            rabbitmq: Proxy::start(engines.rabbitmq.address()).await,
        };
        self.configure("DATABASE_URL", Postgres::url(proxies.postgres.address(), &self.name));
        self.configure("REDIS_URL", Redis::url(proxies.redis.address()));
        self.configure("RABBITMQ_URL", RabbitMq::url(proxies.rabbitmq.address()));
        proxies
    }

    /// Starts `pm serve` with these arguments at the stage's fixed address; waits until it answers.
    pub async fn serve(&self, arguments: &[&str]) -> anyhow::Result<Server> {
        self.serve_at("serve", self.address, arguments).await
    }

    /// As [`serve`](Self::serve), at another address and with another log.
    pub async fn serve_at(&self, name: &str, address: SocketAddr, arguments: &[&str]) -> anyhow::Result<Server> {
        let listen = address.to_string();
        let spec = self.spec(name).arguments(["serve", "--listen", &listen]).arguments(arguments);
        let mut process = spec.spawn()?;
        let up = async { Api::new(address).up(START_LIMIT).await };
        tokio::select! {
            up = up => up.with_context(|| format!("see {}", process.log().display()))?,
            ended = process.ended(START_LIMIT) => anyhow::bail!("{name} ended at once ({ended:?}): {}", process.output()),
        }
        Ok(Server { process, address })
    }

    /// Starts a `pm worker` with `concurrency` decoders; waits until it works.
    pub async fn worker(&self, name: &str, concurrency: usize) -> anyhow::Result<Process> {
        let mut process = self.start_worker(name, concurrency)?;
        self.works(&mut process).await?;
        Ok(process)
    }

    /// As [`worker`](Self::worker), without waiting.
    pub fn start_worker(&self, name: &str, concurrency: usize) -> anyhow::Result<Process> {
        self.spec(name).arguments(["worker", "--concurrency", &concurrency.to_string()]).spawn()
    }

    /// Waits until a worker works.
    pub async fn works(&self, worker: &mut Process) -> anyhow::Result<()> {
        let begun = async {
            while worker.is_running() && !worker.output().contains("working on images") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(START_LIMIT, begun).await.is_ok();
        anyhow::ensure!(in_time && worker.is_running(), "{} is not working: {}", worker.name(), worker.output());
        Ok(())
    }

    /// Runs a command of `pm` to its end; returns its standard output.
    pub async fn pm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.spec("pm").arguments(arguments).succeed(Duration::from_secs(600)).await
    }

    /// Returns `pm` in the stage's directory and environment, with the log `name`.
    pub fn spec(&self, name: &str) -> Spec {
        let program = self.program.get().cloned().unwrap_or_else(program::path);
        let spec = Spec::new(name, program, &self.directory);
        Spec { environment: self.variables().clone(), ..spec }
    }

    /// Returns the output of `pm doctor --json`, whatever its exit code.
    pub async fn doctor(&self) -> anyhow::Result<Value> {
        let output = self.spec("pm").arguments(["doctor", "--json"]).run(Duration::from_secs(600)).await?;
        let printed = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).with_context(|| format!("pm doctor: {}: {printed}", output.status))
    }

    /// Queries the database.
    pub async fn rows(&self, sql: &str) -> anyhow::Result<Vec<QueryResult>> {
        let connection = self.database.get_or_try_init(|| self.connect()).await?;
        let statement = Statement::from_string(connection.get_database_backend(), sql.to_owned());
        Ok(connection.query_all_raw(statement).await?)
    }

    /// Queries the database for one number.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().context("no row")?.try_get_by_index(0)?)
    }

    /// Changes the database directly.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let connection = self.database.get_or_try_init(|| self.connect()).await?;
        connection.execute_unprepared(sql).await?;
        Ok(())
    }

    /// Waits until no job is waiting or running.
    pub async fn settled(&self, limit: Duration) -> anyhow::Result<()> {
        const OPEN: &str = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')";
        let waiting = async {
            // The database may be unavailable for a moment.
            while !self.number(OPEN).await.is_ok_and(|open| open == 0) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(limit, waiting).await.is_ok() {
            return Ok(());
        }
        let left =
            self.rows("SELECT id, state, attempt FROM jobs WHERE state IN ('queued', 'running') LIMIT 10").await?;
        let left: Result<Vec<(i64, String, i32)>, _> = left.iter().map(|row| row.try_get_many_by_index()).collect();
        anyhow::bail!("{} jobs are open after {limit:?}, such as {:?}", self.number(OPEN).await?, left?)
    }

    /// Checks that no process of this stage is left after all were stopped or killed.
    pub async fn deserted(&self) -> anyhow::Result<()> {
        for _ in 0..100 {
            if tree::marked(&self.directory).is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("processes {:?} outlive their parents", tree::marked(&self.directory))
    }

    async fn connect(&self) -> anyhow::Result<DatabaseConnection> {
        let url = match self.setup {
            Setup::Full => Postgres::url(self.engines().postgres.address(), &self.name),
            Setup::Embedded => format!("sqlite://{}?mode=rw", self.directory.join("data/pm.db").display()),
        };
        let mut options = ConnectOptions::new(url);
        options.max_connections(4).sqlx_logging(false).acquire_timeout(Duration::from_secs(5));
        Ok(sea_orm::Database::connect(options).await?)
    }

    fn variables(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.environment.lock()
    }
}
