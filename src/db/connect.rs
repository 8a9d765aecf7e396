//! Connecting, and the one way to write.

use std::{ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use sea_orm::{
    ConnectOptions, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::db::Error;

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Config {
    /// A file, made if it is not there.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A server.
    Postgres {
        /// `postgres://user:password@host:port/name`.
        url: String,
        /// Most connections of this process.
        max_connections: u32,
    },
}

/// The URL holds a password and is not shown.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite { path } => f.debug_struct("Sqlite").field("path", path).finish(),
            Self::Postgres { max_connections, .. } => {
                f.debug_struct("Postgres").field("max_connections", max_connections).finish_non_exhaustive()
            }
        }
    }
}

/// An open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    connection: DatabaseConnection,
    /// SQLite has one writer at a time: waiting here is fair and cannot time out in the middle of a transaction.
    turn: Option<Arc<Mutex<()>>>,
}

/// A transaction that writes; rolled back if it is dropped before [`Write::commit`].
#[derive(Debug)]
pub struct Write {
    transaction: DatabaseTransaction,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Database {
    /// Opens the database; a connection is made at once, so that a wrong address is seen here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let mut options = match config {
            Config::Sqlite { path } => sqlite_options(path),
            Config::Postgres { url, max_connections } => {
                let mut options = ConnectOptions::new(url.clone());
                options.max_connections(*max_connections);
                options
            }
        };
        options
            .min_connections(1)
            .connect_timeout(Duration::from_secs(5))
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(600))
            // A round trip for each checkout; a dead connection shows itself with the first statement anyway.
            .test_before_acquire(false)
            .sqlx_logging(false);
        let connection = sea_orm::Database::connect(options).await.map_err(Error::Unavailable)?;
        let turn = matches!(config, Config::Sqlite { .. }).then(|| Arc::new(Mutex::new(())));
        Ok(Self { connection, turn })
    }

    /// For statements that only read.
    pub const fn read(&self) -> &DatabaseConnection {
        &self.connection
    }

    /// Whether this is SQLite.
    pub const fn is_sqlite(&self) -> bool {
        self.turn.is_some()
    }

    /// `sqlite` or `postgres`.
    pub const fn name(&self) -> &'static str {
        if self.is_sqlite() { "sqlite" } else { "postgres" }
    }

    /// Begins a transaction that writes. On SQLite it takes the write lock at once: a transaction that begins by reading
    /// and writes later fails whenever another one wrote in between.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no connection is free within 5 s.
    pub async fn begin(&self) -> Result<Write, Error> {
        let turn = match &self.turn {
            Some(turn) => Some(turn.clone().lock_owned().await),
            None => None,
        };
        let mode = self.is_sqlite().then_some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() };
        let transaction = self.connection.begin_with_options(options).await?;
        Ok(Write { transaction, _turn: turn })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not.
    pub async fn check(&self) -> Result<(), Error> {
        self.connection.ping().await.map_err(Error::Unavailable)
    }
}

impl Write {
    /// Makes everything that was written durable and visible.
    ///
    /// # Errors
    /// If the database cannot; then nothing was written.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(Error::from)
    }
}

impl Deref for Write {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.transaction
    }
}

fn sqlite_options(path: &std::path::Path) -> ConnectOptions {
    let file = path.to_owned();
    // The path itself is set below, since not every path can be written as a URL.
    let mut options = ConnectOptions::new("sqlite://pm.db");
    options.max_connections(8).map_sqlx_sqlite_opts(move |sqlite| {
        sqlite
            .filename(&file)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("journal_mode", "WAL")
            .pragma("synchronous", "FULL")
            .pragma("mmap_size", "268435456")
            .statement_cache_capacity(256)
    });
    options
}
