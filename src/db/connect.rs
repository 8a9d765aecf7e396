//! Connecting, and the one way to write.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use sea_orm::{
    AccessMode, ConnectOptions, DatabaseConnection, DatabaseTransaction, DbErr, IsolationLevel, RuntimeErr,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
    sqlx::{Connection as _, PgConnection, SqliteConnection},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::db::{Error, clock::FileClock};

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
    pool: Arc<RwLock<DatabaseConnection>>,
    /// SQLite has one writer at a time: waiting here is fair and cannot time out in the middle of a transaction.
    turn: Option<Arc<Mutex<()>>>,
    /// Beside SQLite's file: what PostgreSQL has advisory locks for.
    pub(super) lock_file: Option<Arc<PathBuf>>,
    /// SQLite has no clock of its own.
    pub(super) clock: Option<Arc<FileClock>>,
}

/// A transaction that writes; rolled back if it is dropped before [`Write::commit`].
#[derive(Debug)]
pub struct Write {
    transaction: DatabaseTransaction,
    _turn: Option<OwnedMutexGuard<()>>,
    pub(super) clock: Option<Arc<FileClock>>,
}

/// A writer waits this long for its turn or for a connection.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

impl Database {
    /// Opens the database; a connection is made at once, so that a wrong address is seen here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let pool = Arc::new(RwLock::new(open(config).await?));
        Ok(match config {
            Config::Sqlite { path } => {
                let mut lock_file = path.clone().into_os_string();
                lock_file.push(".lock");
                Self {
                    pool,
                    turn: Some(Arc::default()),
                    lock_file: Some(Arc::new(lock_file.into())),
                    clock: FileClock::find(),
                }
            }
            Config::Postgres { .. } => {
                tokio::spawn(watch(config.clone(), Arc::downgrade(&pool)));
                Self { pool, turn: None, lock_file: None, clock: None }
            }
        })
    }

    /// For single statements that only read.
    pub fn read(&self) -> DatabaseConnection {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For several statements that must see the same moment; nothing is written.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no connection is free within 5 s.
    pub async fn snapshot(&self) -> Result<DatabaseTransaction, Error> {
        let postgres = !self.is_sqlite();
        let options = TransactionOptions {
            isolation_level: postgres.then_some(IsolationLevel::RepeatableRead),
            access_mode: postgres.then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: None,
        };
        Ok(self.read().begin_with_options(options).await?)
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
    /// [`Error::Unavailable`] if its turn does not come or no connection is free within 5 s.
    pub async fn begin(&self) -> Result<Write, Error> {
        let turn = match &self.turn {
            Some(turn) => {
                let waited = tokio::time::timeout(WAIT_LIMIT, turn.clone().lock_owned()).await;
                Some(waited.map_err(|_| Error::Unavailable(DbErr::Custom("too many writers wait".into())))?)
            }
            None => None,
        };
        let mode = self.is_sqlite().then_some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() };
        let transaction = self.read().begin_with_options(options).await?;
        Ok(Write { transaction, _turn: turn, clock: self.clock.clone() })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not.
    pub async fn check(&self) -> Result<(), Error> {
        self.read().ping().await.map_err(Error::Unavailable)
    }
}

impl Write {
    /// Makes everything that was written durable and visible.
    ///
    /// # Errors
    /// If the database refuses, nothing was written; if the connection breaks off, that is not known.
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

async fn open(config: &Config) -> Result<DatabaseConnection, Error> {
    let mut options = match config {
        Config::Sqlite { path } => sqlite_options(path),
        Config::Postgres { url, max_connections } => {
            let mut options = ConnectOptions::new(url.clone());
            options.max_connections(*max_connections);
            options.map_sqlx_postgres_pool_opts(|pool| {
                pool.after_connect(|connection, _| Box::pin(give_up_what_idles(connection)))
            });
            options
        }
    };
    options
        .min_connections(1)
        .connect_timeout(Duration::from_secs(5))
        .acquire_timeout(WAIT_LIMIT)
        .idle_timeout(Duration::from_secs(600))
        // A round trip for each checkout; a dead connection shows itself with the first statement anyway.
        .test_before_acquire(false)
        .sqlx_logging(false);
    const TRIES: u32 = 20;
    let mut tries = 1;
    loop {
        match sea_orm::Database::connect(options.clone()).await {
            Ok(connection) => return Ok(connection),
            // Whoever opens a new file first sets its journal, and nobody else is made to wait for that.
            Err(error) if is_locked(&error) && tries < TRIES => tries += 1,
            Err(error) => return Err(Error::Unavailable(error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets PostgreSQL end a transaction whose process has stopped in the midst of it, frozen or cut off: until then it keeps
/// its locks, and everybody waits who needs the same rows, the sweeper among them. No transaction of ours ever pauses.
async fn give_up_what_idles(connection: &mut PgConnection) -> Result<(), sea_orm::sqlx::Error> {
    sea_orm::sqlx::query("SET idle_in_transaction_session_timeout = '10s'").execute(connection).await.map(|_| ())
}

fn is_locked(error: &DbErr) -> bool {
    const SQLITE_BUSY: &str = "5";
    let (DbErr::Conn(RuntimeErr::SqlxError(inner)) | DbErr::Exec(RuntimeErr::SqlxError(inner))) = error else {
        return false;
    };
    inner.as_database_error().and_then(|refusal| refusal.code()).as_deref() == Some(SQLITE_BUSY)
}

/// Replaces a pool whose connections have all fallen silent, as after a failover by address or in a firewall that forgot
/// them: such a connection never ends by itself, and whoever waits for it never gives it back.
async fn watch(config: Config, pool: Weak<RwLock<DatabaseConnection>>) {
    const EVERY: Duration = Duration::from_secs(2);
    const LIMIT: Duration = Duration::from_secs(2);
    const SILENT_AFTER: u32 = 3;
    let mut silences = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let connection = pool.read().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(LIMIT, connection.ping()).await {
            // A refusal is an answer: the pool makes new connections by itself.
            Ok(_) => silences = 0,
            Err(_) => silences += 1,
        }
        if silences >= SILENT_AFTER
            && let Ok(Ok(fresh)) = tokio::time::timeout(WAIT_LIMIT, open(&config)).await
        {
            tracing::warn!("the connections to the database fell silent and are replaced");
            *pool.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            silences = 0;
        }
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
    options.map_sqlx_sqlite_pool_opts(|pool| {
        pool.after_release(|connection, _| Box::pin(async move { is_at_rest(connection).await }))
    });
    options
}

/// Whether no transaction is open on a connection that comes back. When the disk is full SQLite rolls back by itself; the
/// driver's own rollback then fails and it goes on counting a transaction, so that whatever came next on this connection
/// would be committed only in appearance.
async fn is_at_rest(connection: &mut SqliteConnection) -> Result<bool, sea_orm::sqlx::Error> {
    // The answer comes after whatever is still under way on the connection.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}
