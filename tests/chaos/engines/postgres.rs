//! A PostgreSQL with fsync on, since acknowledged writes must survive a kill.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection, DbBackend, QueryResult, Statement};
use tokio::sync::Mutex;

use super::{START_LIMIT, programs, wait_until};
use crate::{
    clock::FakeClock,
    processes::{Process, Spec},
};

/// A server at a fixed address, running or not.
pub struct Postgres {
    server: Spec,
    address: SocketAddr,
    running: Mutex<Option<Process>>,
    /// Its fake clock, if it has one.
    clock: parking_lot::Mutex<Option<FakeClock>>,
}

/// Programs that are needed and missing.
pub fn missing() -> Option<&'static str> {
    let places = programs::postgres_places();
    let there = |program| programs::find(program, &places).is_some();
    (!there("initdb") || !there("postgres")).then_some("initdb and postgres (Debian: postgresql)")
}

impl Postgres {
    /// Creates the data directory of a new server without starting it.
    pub async fn prepare(directory: &Path) -> anyhow::Result<Self> {
        let places = programs::postgres_places();
        let program = |name| programs::find(name, &places).with_context(|| format!("{name} is not installed"));
        let user = programs::user();
        let (data, sockets) = (directory.join("data"), directory.join("sockets"));
        for directory in [directory, &data, &sockets] {
            programs::directory_of(user, directory)?;
        }
        let initdb = Spec { user, ..Spec::new("initdb", program("initdb")?, directory) };
        let initdb = initdb.arguments(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        // Only initdb skips fsync; the server itself does not.
        initdb.arguments(["--no-sync", "--pgdata"]).arguments([&data]).succeed(START_LIMIT).await?;
        let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
        let settings = [
            "fsync=on".to_owned(),
            "synchronous_commit=on".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", address.port()),
            format!("unix_socket_directories={}", sockets.display()),
            "max_connections=300".to_owned(),
            "shared_buffers=64MB".to_owned(),
        ];
        let server = Spec { user, ..Spec::new("postgres", program("postgres")?, directory) };
        let server = server.arguments(["-D"]).arguments([&data]);
        let server = settings.iter().fold(server, |server, setting| server.arguments(["-c", setting.as_str()]));
        Ok(Self { server, address, running: Mutex::new(None), clock: parking_lot::Mutex::default() })
    }

    /// Returns the server's address, running or not.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of a database at `address`: the server's own or a proxy's.
    pub fn url(address: SocketAddr, database: &str) -> String {
        format!("postgres://postgres@{address}/{database}")
    }

    /// Starts the server, or resumes it if it is frozen, and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if let Some(process) = &mut *running
            && process.is_running()
        {
            process.thaw();
        }
        wait_until("PostgreSQL answers", START_LIMIT, async || {
            // Right after a kill it may refuse to start until the last killed process has exited.
            if !running.as_mut().is_some_and(Process::is_running) {
                *running = self.spec().spawn().ok();
            }
            self.answers().await
        })
        .await
        .with_context(|| format!("see {}", self.server.log().display()))
    }

    /// Restarts the server with this clock, or with the machine's.
    pub async fn restart_under(&self, clock: Option<FakeClock>) -> anyhow::Result<()> {
        self.stop().await?;
        *self.clock.lock() = clock;
        self.start().await
    }

    fn spec(&self) -> Spec {
        let clock = self.clock.lock().clone();
        let variables = clock.iter().flat_map(FakeClock::variables);
        variables.fold(self.server.clone(), |server, (name, value)| server.variable(name, value))
    }

    /// Stops the server with a fast shutdown, which does not wait for clients.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let Some(mut process) = self.running.lock().await.take() else { return Ok(()) };
        process.thaw();
        process.interrupt();
        process.ended(START_LIMIT).await.map(|_| ())
    }

    /// Kills the server with its backends.
    pub async fn kill(&self) {
        if let Some(mut process) = self.running.lock().await.take() {
            process.kill().await;
        }
    }

    /// Freezes the server and its backends (SIGSTOP).
    pub async fn freeze(&self) {
        if let Some(process) = &*self.running.lock().await {
            process.freeze();
        }
    }

    /// Resumes it (SIGCONT).
    pub async fn thaw(&self) {
        if let Some(process) = &*self.running.lock().await {
            process.thaw();
        }
    }

    /// Terminates every client connection to `database`; returns their number.
    pub async fn terminate_clients(&self, database: &str) -> anyhow::Result<usize> {
        let sql =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
        Ok(self.query("postgres", sql, [database.into()]).await?.len())
    }

    /// Creates an empty database.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<()> {
        let connection = self.connect("postgres").await?;
        connection.execute_unprepared(&format!("CREATE DATABASE \"{name}\"")).await?;
        Ok(connection.close().await?)
    }

    /// Runs a query on `database` over a new connection.
    pub async fn query(
        &self,
        database: &str,
        sql: &str,
        values: impl IntoIterator<Item = sea_orm::Value>,
    ) -> anyhow::Result<Vec<QueryResult>> {
        let connection = self.connect(database).await?;
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        let rows = connection.query_all_raw(statement).await;
        connection.close().await?;
        Ok(rows?)
    }

    async fn connect(&self, database: &str) -> anyhow::Result<DatabaseConnection> {
        let mut options = ConnectOptions::new(Self::url(self.address, database));
        options.max_connections(1).sqlx_logging(false).acquire_timeout(Duration::from_secs(2));
        Ok(sea_orm::Database::connect(options).await?)
    }

    async fn answers(&self) -> bool {
        let asking = async { self.query("postgres", "SELECT 1", []).await.is_ok() };
        tokio::time::timeout(Duration::from_secs(2), asking).await.unwrap_or(false)
    }
}
