//! Connecting, and the one way to write.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait as _, DbBackend, DbErr, IsolationLevel, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions,
    sqlx::{self, AssertSqlSafe, Executor as _, PgConnection},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::db::{
    Config, Error, Postgres,
    connection::{
        Connection, Outdated, Transaction,
        clock::FileClock,
        demand::Demand,
        driver::Threads,
        file::{self, OpenFile},
        pooler::{self, Link},
        sqlite::{self, STATEMENTS, WAIT_LIMIT},
    },
};

/// An open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pub(in crate::db) shared: Arc<Shared>,
    sqlite: bool,
    /// Beside SQLite's file: what PostgreSQL has advisory locks for.
    pub(in crate::db) lock_file: Option<Arc<PathBuf>>,
    /// SQLite has no clock of its own.
    pub(in crate::db) clock: Option<Arc<FileClock>>,
}

/// What all clones share.
#[derive(Debug)]
pub(in crate::db) struct Shared {
    /// Replaced when it does not work any more.
    pub(in crate::db) pool: RwLock<Pool>,
    pub(in crate::db) config: Config,
    pub(in crate::db) link: Arc<Link>,
    pub(in crate::db) demand: Demand,
}

/// The connections, and the queue of those who want to write.
#[derive(Clone, Debug)]
pub(in crate::db) struct Pool {
    connection: Connection,
    queue: Queue,
    /// When a write last worked; locked while one is tried, so that there is one at a time.
    proven: Arc<Mutex<Option<Instant>>>,
}

/// What stays when the connections are replaced.
#[derive(Clone, Debug, Default)]
pub(in crate::db) struct Queue {
    /// SQLite has one writer at a time: waiting here is fair and cannot time out in the middle of a transaction.
    turn: Option<Arc<Mutex<()>>>,
    /// SQLite's file, once it is open.
    pub(in crate::db) file: Option<Arc<OpenFile>>,
    /// Counts transactions that were committed.
    commits: Arc<AtomicU64>,
}

/// A transaction that writes; rolled back if it is dropped before [`Write::commit`].
#[derive(Debug)]
pub struct Write {
    transaction: Transaction,
    commits: Arc<AtomicU64>,
    _turn: Option<OwnedMutexGuard<()>>,
    pub(in crate::db) clock: Option<Arc<FileClock>>,
}

/// A write that worked proves for this long that writes work.
const PROOF_LIFETIME: Duration = Duration::from_secs(2);
/// A write that is tried is given up after this.
const PROOF_LIMIT: Duration = Duration::from_secs(20);

impl Database {
    /// Opens the database; a connection is made at once.
    pub(in crate::db) async fn open(config: &Config) -> Result<Self, Error> {
        let link = match config {
            Config::Sqlite { .. } => Arc::default(),
            Config::Postgres(postgres) => Arc::new(pooler::find(postgres).await?),
        };
        let turn = matches!(config, Config::Sqlite { .. }).then(Arc::default);
        if let Config::Sqlite { path } = config {
            file::make(path).await?;
        }
        let mut pool = open(config, &link, Queue { turn, ..Queue::default() }).await?;
        if let Config::Sqlite { path } = config {
            pool.queue.file = Some(Arc::new(OpenFile::note(path).await?));
        }
        let shared =
            Arc::new(Shared { pool: RwLock::new(pool), config: config.clone(), link, demand: Demand::default() });
        Ok(match config {
            Config::Sqlite { path } => {
                let mut lock_file = path.clone().into_os_string();
                lock_file.push(".lock");
                let (lock_file, clock) = (Some(Arc::new(lock_file.into())), FileClock::find());
                Self { shared, sqlite: true, lock_file, clock }
            }
            Config::Postgres(_) => Self { shared, sqlite: false, lock_file: None, clock: None },
        })
    }

    /// For single statements that only read.
    pub fn read(&self) -> Connection {
        self.shared.pool().connection
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
        self.shared.pool().connection.begin(options).await
    }

    /// Begins a transaction in which the schema is changed: a step takes as long as it takes.
    pub(in crate::db) async fn begin_for_schema(&self) -> Result<Write, Error> {
        if self.is_sqlite() {
            return self.begin().await;
        }
        let transaction = self.read().begin_for_schema().await?;
        transaction.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        Ok(Write { transaction, commits: Arc::default(), _turn: None, clock: None })
    }

    /// Whether a pooler in transaction mode stands before the server.
    pub(in crate::db) fn is_pooled(&self) -> bool {
        self.shared.link.is_pooled()
    }

    /// Returns how connections to PostgreSQL are used, in words.
    pub fn way_of_connecting(&self) -> Option<String> {
        let Config::Postgres(config) = &self.shared.config else { return None };
        Some(self.shared.link.describe(config))
    }

    /// SQLite's file.
    pub(in crate::db) fn file(&self) -> Option<Arc<OpenFile>> {
        self.shared.queue().0.file
    }

    /// Whether this is SQLite.
    pub const fn is_sqlite(&self) -> bool {
        self.sqlite
    }

    /// `sqlite` or `postgres`.
    pub const fn name(&self) -> &'static str {
        if self.is_sqlite() { "sqlite" } else { "postgres" }
    }

    /// Begins a transaction that writes. On SQLite it takes the write lock at once: a transaction that begins by reading
    /// and writes later fails whenever another one wrote in between.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if its turn does not come or no connection is free in time.
    pub async fn begin(&self) -> Result<Write, Error> {
        Ok(Write { clock: self.clock.clone(), ..self.shared.pool().begin().await? })
    }

    /// Asks whether the database answers, and proves that it takes writes: begins one and takes it back. A proof holds for 2 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not.
    pub async fn check(&self) -> Result<(), Error> {
        self.shared.check().await
    }
}

impl Shared {
    fn pool(&self) -> Pool {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Config::Postgres(_) = self.config {
            self.demand.note(pool.connection.pool().get_postgres_connection_pool());
        }
        pool
    }

    /// Returns the pool without counting as one who is about to use it.
    pub(in crate::db) fn connection(&self) -> Connection {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).connection.clone()
    }

    /// Returns the pool's queue, and how many transactions were committed.
    pub(in crate::db) fn queue(&self) -> (Queue, u64) {
        let queue = self.pool.read().unwrap_or_else(PoisonError::into_inner).queue.clone();
        let commits = queue.commits.load(Ordering::Relaxed);
        (queue, commits)
    }

    /// As [`Database::check`].
    pub(in crate::db) async fn check(&self) -> Result<(), Error> {
        self.pool().check().await
    }
}

impl Pool {
    async fn begin(&self) -> Result<Write, Error> {
        let turn = match &self.queue.turn {
            Some(turn) => {
                let waited = tokio::time::timeout(WAIT_LIMIT, turn.clone().lock_owned()).await;
                Some(waited.map_err(|_| Error::Unavailable(DbErr::Custom("too many writers wait".into())))?)
            }
            None => None,
        };
        if let Some(file) = &self.queue.file {
            file.ensure_in_place().await?;
        }
        let mode = turn.is_some().then_some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode: mode, ..TransactionOptions::default() };
        let transaction = self.connection.begin(options).await?;
        Ok(Write { transaction, commits: self.queue.commits.clone(), _turn: turn, clock: None })
    }

    async fn check(&self) -> Result<(), Error> {
        // Whether it answers is asked each time: a proof from before says nothing about that.
        self.connection.pool().ping().await.map_err(Error::Unavailable)?;
        let mut proven = Arc::clone(&self.proven).lock_owned().await;
        if proven.is_some_and(|at| at.elapsed() < PROOF_LIFETIME) {
            return Ok(());
        }
        *proven = None;
        let pool = self.clone();
        // In a task of its own: the driver loses track of a transaction that is cut off while it begins.
        let proof = tokio::spawn(async move {
            let silent = |_| Error::Unavailable(DbErr::Custom("a write is not answered".into()));
            tokio::time::timeout(PROOF_LIMIT, pool.prove()).await.map_err(silent)??;
            *proven = Some(Instant::now());
            Ok(())
        });
        proof.await.map_err(|broken| Error::Unavailable(DbErr::Custom(broken.to_string())))?
    }

    /// Takes the write lock on SQLite, and a row's on PostgreSQL, which a standby refuses; leaves nothing behind.
    pub(in crate::db) async fn prove(&self) -> Result<(), Error> {
        const LOCK_A_ROW: &str = "SELECT version FROM seaql_migrations LIMIT 1 FOR UPDATE SKIP LOCKED";
        let write = self.begin().await?;
        if write.get_database_backend() == DbBackend::Postgres {
            write.query_one_raw(Statement::from_string(DbBackend::Postgres, LOCK_A_ROW)).await?;
        }
        write.rollback().await
    }
}

impl Write {
    /// Makes everything that was written durable and visible.
    ///
    /// # Errors
    /// If the database refuses, nothing was written; if the connection breaks off, that is not known.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes back everything that was written; dropping it does so, too, a little later.
    ///
    /// # Errors
    /// If the connection breaks off; then the database takes it back by itself.
    pub async fn rollback(self) -> Result<(), Error> {
        self.transaction.rollback().await
    }
}

impl Deref for Write {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

/// Opens the connections; one is made at once.
pub(in crate::db) async fn open(config: &Config, link: &Arc<Link>, queue: Queue) -> Result<Pool, Error> {
    let outdated = Outdated::default();
    let (mut options, threads) = match config {
        Config::Sqlite { path } => {
            let threads = Threads::watch();
            (sqlite::options(path, &threads), Some(threads))
        }
        Config::Postgres(postgres) => (postgres_options(postgres, link, &outdated), None),
    };
    // A check costs a round trip for each checkout; a dead connection shows itself with the first statement anyway.
    options.min_connections(1).test_before_acquire(false).sqlx_logging(false);
    let began = Instant::now();
    loop {
        match sea_orm::Database::connect(options.clone()).await {
            Ok(pool) => {
                let connection = Connection::new(pool, outdated, link.clone(), threads);
                return Ok(Pool { connection, queue, proven: Arc::default() });
            }
            // Whoever opens a new file first sets its journal, and nobody else is made to wait for that.
            Err(error) if is_locked(&error) && began.elapsed() < WAIT_LIMIT => {}
            Err(error) => return Err(Error::Unavailable(error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn postgres_options(config: &Postgres, link: &Link, outdated: &Outdated) -> ConnectOptions {
    let mut options = ConnectOptions::new(link.url.clone());
    options
        .max_connections(config.max_connections)
        .connect_timeout(config.connect_timeout)
        .acquire_timeout(config.connect_timeout)
        .idle_timeout(config.idle_timeout);
    let statements = if link.is_pooled() { 0 } else { STATEMENTS };
    options.map_sqlx_postgres_opts(move |postgres| pooler::plain(postgres).statement_cache_capacity(statements));
    let sets = config.timeouts().into_iter().map(|(name, value)| format!("SET {name} = {value}"));
    // Behind a pooler each transaction sets them.
    let session: Option<Arc<str>> = (!link.is_pooled()).then(|| sets.collect::<Vec<_>>().join("; ").into());
    let outdated = outdated.clone();
    options.map_sqlx_postgres_pool_opts(move |pool| {
        let (outdated, session) = (outdated.clone(), session.clone());
        pool.after_connect(move |connection, _| Box::pin(set(connection, session.clone()))).before_acquire(
            move |_, state| {
                let usable = outdated.allows(state.age);
                Box::pin(async move { Ok(usable) })
            },
        )
    });
    options
}

async fn set(connection: &mut PgConnection, session: Option<Arc<str>>) -> Result<(), sqlx::Error> {
    let Some(session) = session else { return Ok(()) };
    connection.execute(AssertSqlSafe(session.to_string())).await.map(|_| ())
}

fn is_locked(error: &DbErr) -> bool {
    const SQLITE_BUSY: u32 = 5;
    let (DbErr::Conn(RuntimeErr::SqlxError(inner)) | DbErr::Exec(RuntimeErr::SqlxError(inner))) = error else {
        return false;
    };
    let code = inner.as_database_error().and_then(|refusal| refusal.code()?.parse::<u32>().ok());
    // The lowest byte is the kind; the others say why.
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}
