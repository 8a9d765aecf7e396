//! Connecting, and the one way to write.

use std::{
    fmt,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use sea_orm::{
    AccessMode, ConnectOptions, DatabaseConnection, DbErr, IsolationLevel, RuntimeErr, SqliteTransactionMode,
    TransactionOptions,
    sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::db::{
    Error,
    connection::{Connection, Listen, Transaction},
    pooler::{self, Pooler},
    trim::{self, Demand},
};

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Config {
    /// A file, made if it is not there.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A server.
    Postgres(Postgres),
}

/// A PostgreSQL server and how connections to it are used.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `postgres://user:password@host:port/name`.
    pub url: String,
    /// The same database without a pooler between, for what needs a session: notifications and migrations.
    pub direct_url: Option<String>,
    /// Whether a pooler in transaction mode stands before the server.
    pub pooler: Pooler,
    /// Most connections of this process.
    pub max_connections: u32,
    /// Connections beyond the most that were in use at once within this time are closed.
    pub idle_timeout: Duration,
    /// The server ends a statement that takes longer; zero leaves it to the server's own setting.
    pub statement_timeout: Duration,
    /// The longest wait for a connection, be it a new one or one that is given back.
    pub connect_timeout: Duration,
    /// The server ends a transaction that says nothing for so long: its process was frozen or cut off, and would else keep
    /// its locks. No transaction of ours ever pauses.
    pub idle_in_transaction: Duration,
    /// How long the first connection is waited for while the server has none free; without end if absent.
    pub patience: Option<Duration>,
}

impl Postgres {
    /// A server at `url` with the settings' defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            direct_url: None,
            pooler: Pooler::Auto,
            max_connections: 16,
            idle_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(10),
            patience: Some(Duration::from_secs(10)),
        }
    }
}

/// The URLs hold passwords and are not shown.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => f.debug_struct("Sqlite").field("path", path).finish(),
            Self::Postgres(Postgres { pooler, max_connections, .. }) => f
                .debug_struct("Postgres")
                .field("pooler", pooler)
                .field("max_connections", max_connections)
                .finish_non_exhaustive(),
        }
    }
}

/// An open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Arc<RwLock<DatabaseConnection>>,
    /// How connections to PostgreSQL are used.
    pub(super) server: Option<Arc<Server>>,
    /// SQLite has one writer at a time: waiting here is fair and cannot time out in the middle of a transaction.
    turn: Option<Arc<Mutex<()>>>,
    /// Beside SQLite's file: what PostgreSQL has advisory locks for.
    pub(super) lock_file: Option<Arc<PathBuf>>,
}

/// What stays the same however often the pool of connections to PostgreSQL is replaced.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: Config,
    /// What each transaction sets behind a pooler in transaction mode.
    pub(super) local: Option<Arc<str>>,
    listen: Listen,
    demand: Arc<Demand>,
}

/// A transaction that writes; rolled back if it is dropped before [`Write::commit`].
#[derive(Debug)]
pub struct Write {
    transaction: Transaction,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// A writer on SQLite waits this long for its turn or for a connection.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

impl Database {
    /// Opens the database; a connection is made at once, so that a wrong address is seen here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let postgres = match config {
            Config::Sqlite { path } => {
                let mut lock_file = path.clone().into_os_string();
                lock_file.push(".lock");
                let pool = Arc::new(RwLock::new(open_sqlite(path).await?));
                let lock_file = Some(Arc::new(lock_file.into()));
                return Ok(Self { pool, server: None, turn: Some(Arc::default()), lock_file });
            }
            Config::Postgres(postgres) => postgres,
        };
        let found = pooler::find(postgres).await?;
        let listen = match (&postgres.direct_url, &found.local) {
            (Some(url), _) => Listen::At(url.as_str().into()),
            (None, None) => Listen::Here,
            (None, Some(_)) => Listen::Nowhere,
        };
        let postgres = Postgres { url: found.url, ..postgres.clone() };
        let pool = Arc::new(RwLock::new(open_postgres(&postgres, found.local.is_some()).await?));
        let demand = Arc::<Demand>::default();
        tokio::spawn(trim::trim(Arc::downgrade(&pool), demand.clone(), postgres.idle_timeout));
        tokio::spawn(watch(postgres.clone(), found.local.is_some(), Arc::downgrade(&pool)));
        say(&listen, found.local.is_some());
        let server = Server { config: Config::Postgres(postgres), local: found.local, listen, demand };
        Ok(Self { pool, server: Some(Arc::new(server)), turn: None, lock_file: None })
    }

    /// For single statements that only read.
    pub fn read(&self) -> Connection {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(server) = &self.server else { return pool.into() };
        server.demand.note(pool.get_postgres_connection_pool());
        Connection::new(pool, server.local.clone(), server.listen.clone())
    }

    /// Whether a pooler in transaction mode stands before the server.
    pub fn is_pooled(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.local.is_some())
    }

    /// Whether other processes' notifications arrive.
    pub fn hears_notifications(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !matches!(server.listen, Listen::Nowhere))
    }

    /// For several statements that must see the same moment; nothing is written.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no connection is free in time.
    pub async fn snapshot(&self) -> Result<Transaction, Error> {
        let postgres = !self.is_sqlite();
        let options = TransactionOptions {
            isolation_level: postgres.then_some(IsolationLevel::RepeatableRead),
            access_mode: postgres.then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: None,
        };
        Ok(self.read().begin(options).await?)
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
    /// [`Error::Unavailable`] if its turn does not come, or no connection is free, in time.
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
        let transaction = self.read().begin(options).await?;
        Ok(Write { transaction, _turn: turn })
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
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

/// Says in the log what only some set-ups have.
fn say(listen: &Listen, is_pooled: bool) {
    if is_pooled {
        tracing::info!("a pooler in transaction mode stands before PostgreSQL: every statement runs in a transaction");
    }
    if matches!(listen, Listen::Nowhere) {
        tracing::info!(
            "no notifications reach this process through the pooler: it looks for what others wrote each second, and for \
             events four times a second; PM_DATABASE_DIRECT_URL names an address without a pooler"
        );
    }
}

pub(super) async fn open_postgres(config: &Postgres, is_pooled: bool) -> Result<DatabaseConnection, Error> {
    let mut options = ConnectOptions::new(config.url.clone());
    options
        .max_connections(config.max_connections)
        .min_connections(1)
        .connect_timeout(config.connect_timeout)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(config.idle_timeout)
        // A round trip for each checkout; a dead connection shows itself with the first statement anyway.
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(move |options| {
            let options = options.extra_float_digits(None);
            if is_pooled { options.statement_cache_capacity(0) } else { options }
        });
    if !is_pooled {
        let session: Arc<str> = session_settings(config).into();
        options.map_sqlx_postgres_pool_opts(move |pool| {
            let session = session.clone();
            pool.after_connect(move |connection, _| Box::pin(set(connection, session.clone())))
        });
    }
    sea_orm::Database::connect(options).await.map_err(Error::Unavailable)
}

/// What a session sets once. Behind a pooler in transaction mode each transaction does.
fn session_settings(config: &Postgres) -> String {
    let idle = config.idle_in_transaction.as_millis();
    let idle = format!("SET idle_in_transaction_session_timeout = {idle}");
    match config.statement_timeout.as_millis() {
        0 => idle,
        statement => format!("{idle}; SET statement_timeout = {statement}"),
    }
}

async fn set(connection: &mut PgConnection, session: Arc<str>) -> Result<(), sqlx::Error> {
    connection.execute(AssertSqlSafe(session.to_string())).await.map(|_| ())
}

async fn open_sqlite(path: &std::path::Path) -> Result<DatabaseConnection, Error> {
    let mut options = sqlite_options(path);
    options
        .min_connections(1)
        .connect_timeout(WAIT_LIMIT)
        .acquire_timeout(WAIT_LIMIT)
        .idle_timeout(Duration::from_secs(600))
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

fn is_locked(error: &DbErr) -> bool {
    const SQLITE_BUSY: &str = "5";
    let (DbErr::Conn(RuntimeErr::SqlxError(inner)) | DbErr::Exec(RuntimeErr::SqlxError(inner))) = error else {
        return false;
    };
    inner.as_database_error().and_then(|refusal| refusal.code()).as_deref() == Some(SQLITE_BUSY)
}

/// Replaces a pool whose connections have all fallen silent, as after a failover by address or in a firewall that forgot
/// them: such a connection never ends by itself, and whoever waits for it never gives it back.
async fn watch(config: Postgres, is_pooled: bool, pool: Weak<RwLock<DatabaseConnection>>) {
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
            && let Ok(Ok(fresh)) = tokio::time::timeout(WAIT_LIMIT, open_answering(&config, is_pooled)).await
        {
            tracing::warn!("the connections to the database fell silent and are replaced");
            *pool.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            silences = 0;
        }
    }
}

/// A pool whose first connection has answered: a pooler accepts connections before it has one to the server.
async fn open_answering(config: &Postgres, is_pooled: bool) -> Result<DatabaseConnection, Error> {
    let fresh = open_postgres(config, is_pooled).await?;
    fresh.ping().await.map_err(Error::Unavailable)?;
    Ok(fresh)
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
