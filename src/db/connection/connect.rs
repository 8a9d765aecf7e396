//! Opens the database and begins write transactions.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
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
    /// The lock file beside the SQLite file, in place of PostgreSQL's advisory locks.
    pub(in crate::db) lock_file: Option<Arc<PathBuf>>,
    /// The shared clock of SQLite, which has none of its own.
    pub(in crate::db) clock: Option<Arc<FileClock>>,
}

/// State that all clones share.
#[derive(Debug)]
pub(in crate::db) struct Shared {
    /// The pool; replaced when its connections stop working.
    pub(in crate::db) pool: RwLock<Pool>,
    pub(in crate::db) config: Config,
    pub(in crate::db) link: Arc<Link>,
    pub(in crate::db) demand: Demand,
}

/// The connections, and the queue of writers.
#[derive(Clone, Debug)]
pub(in crate::db) struct Pool {
    connection: Connection,
    queue: Queue,
    /// The time of the last successful write; locked during a check, so that one runs at a time.
    proven: Arc<Mutex<Option<Instant>>>,
}

/// State that survives a replacement of the connections.
#[derive(Clone, Debug, Default)]
pub(in crate::db) struct Queue {
    /// Queue of writers on SQLite, which has one at a time. Waiting here is fair and cannot time out in a transaction.
    turn: Option<Arc<Mutex<()>>>,
    /// The SQLite file, once it is open.
    pub(in crate::db) file: Option<Arc<OpenFile>>,
    /// Number of committed transactions.
    commits: Arc<AtomicU64>,
}

/// A write transaction, rolled back if dropped before [`Write::commit`].
#[derive(Debug)]
pub struct Write {
    transaction: Transaction,
    commits: Arc<AtomicU64>,
    _turn: Option<OwnedMutexGuard<()>>,
    pub(in crate::db) clock: Option<Arc<FileClock>>,
}

/// How long a successful write proves that writes work.
const PROOF_LIFETIME: Duration = Duration::from_secs(2);
/// Timeout of a test write.
const PROOF_LIMIT: Duration = Duration::from_secs(20);

impl Database {
    /// Opens the database with one connection.
    pub(in crate::db) async fn open(config: &Config) -> Result<Self, Error> {
        let link = match config {
            Config::Sqlite { .. } => Arc::default(),
            Config::Postgres(postgres) => Arc::new(pooler::find(postgres).await?),
        };
        let turn = matches!(config, Config::Sqlite { .. }).then(Arc::default);
        let file = match config {
            Config::Sqlite { path } => Some((path, file::find_or_make(path).await?)),
            Config::Postgres(_) => None,
        };
        let mut pool = open(config, &link, Queue { turn, ..Queue::default() }).await?;
        if let Some((path, identity)) = file {
            pool.queue.file = Some(Arc::new(OpenFile::note(path, identity).await?));
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

    /// Returns a connection for single read-only statements.
    pub fn read(&self) -> Connection {
        self.shared.pool().connection
    }

    /// Begins a read-only transaction whose statements see the same snapshot.
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

    /// Begins a transaction for a schema migration, without a statement timeout.
    pub(in crate::db) async fn begin_for_schema(&self) -> Result<Write, Error> {
        if self.is_sqlite() {
            return self.begin().await;
        }
        let transaction = self.read().begin_for_schema().await?;
        transaction.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        Ok(Write { transaction, commits: Arc::default(), _turn: None, clock: None })
    }

    /// Returns whether a pooler in transaction mode is in use.
    pub(in crate::db) fn is_pooled(&self) -> bool {
        self.shared.link.is_pooled()
    }

    /// Describes how connections to PostgreSQL are used.
    pub fn way_of_connecting(&self) -> Option<String> {
        let Config::Postgres(config) = &self.shared.config else { return None };
        Some(self.shared.link.describe(config))
    }

    /// Returns the SQLite file.
    pub(in crate::db) fn file(&self) -> Option<Arc<OpenFile>> {
        self.shared.queue().0.file
    }

    /// Returns whether this is SQLite.
    pub const fn is_sqlite(&self) -> bool {
        self.sqlite
    }

    /// Returns `sqlite` or `postgres`.
    pub const fn name(&self) -> &'static str {
        if self.is_sqlite() { "sqlite" } else { "postgres" }
    }

    /// Begins a write transaction.
    /// On SQLite it takes the write lock at once: a transaction that reads first and writes later fails if another one
    /// wrote in between.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the write lock or a connection is not free in time.
    pub async fn begin(&self) -> Result<Write, Error> {
        Ok(Write { clock: self.clock.clone(), ..self.shared.pool().begin().await? })
    }

    /// Checks that the database answers and accepts writes.
    /// It begins a write and rolls it back. A successful check is valid for 2 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database does not answer or rejects writes.
    pub async fn check(&self) -> Result<(), Error> {
        self.shared.check().await
    }
}

impl Shared {
    fn pool(&self) -> Pool {
        let pool = self.pool.read().clone();
        if let Config::Postgres(_) = self.config {
            self.demand.note(pool.connection.pool().get_postgres_connection_pool());
        }
        pool
    }

    /// Returns the pool without counting it as in use.
    pub(in crate::db) fn connection(&self) -> Connection {
        self.pool.read().connection.clone()
    }

    /// Returns the queue of writers and the number of committed transactions.
    pub(in crate::db) fn queue(&self) -> (Queue, u64) {
        let queue = self.pool.read().queue.clone();
        let commits = queue.commits.load(Ordering::Relaxed);
        (queue, commits)
    }

    /// Implements [`Database::check`].
    pub(in crate::db) async fn check(&self) -> Result<(), Error> {
        self.pool().check().await
    }
}

impl Pool {
    async fn begin(&self) -> Result<Write, Error> {
        let turn = match &self.queue.turn {
            Some(turn) => {
                let waited = tokio::time::timeout(WAIT_LIMIT, turn.clone().lock_owned()).await;
                Some(waited.map_err(|_| Error::Unavailable(DbErr::Custom("too many writers are waiting".into())))?)
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
        // The ping runs each time: an earlier test write does not show whether the database answers now.
        self.connection.pool().ping().await.map_err(Error::Unavailable)?;
        let mut proven = Arc::clone(&self.proven).lock_owned().await;
        if proven.is_some_and(|at| at.elapsed() < PROOF_LIFETIME) {
            return Ok(());
        }
        *proven = None;
        let pool = self.clone();
        // Runs in a separate task: the driver loses track of a transaction that is canceled while it begins.
        let proof = tokio::spawn(async move {
            let silent = |_| Error::Unavailable(DbErr::Custom("a test write got no answer".into()));
            tokio::time::timeout(PROOF_LIMIT, pool.prove()).await.map_err(silent)??;
            *proven = Some(Instant::now());
            Ok(())
        });
        proof.await.map_err(|broken| Error::Unavailable(DbErr::Custom(broken.to_string())))?
    }

    /// Takes the write lock on SQLite, or a row lock on PostgreSQL.
    /// A standby rejects it. Changes nothing.
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
    /// Commits the transaction: its writes become durable and visible.
    ///
    /// # Errors
    /// If the database rejects the commit, nothing was written. If the connection fails, the result is unknown.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Rolls the transaction back. Dropping it has the same effect a little later.
    ///
    /// # Errors
    /// If the connection fails; the database then rolls back by itself.
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

/// Opens the pool with one connection.
pub(in crate::db) async fn open(config: &Config, link: &Arc<Link>, queue: Queue) -> Result<Pool, Error> {
    let outdated = Outdated::default();
    let (mut options, threads) = match config {
        Config::Sqlite { path } => {
            let threads = Threads::watch();
            (sqlite::options(path, &threads), Some(threads))
        }
        Config::Postgres(postgres) => (postgres_options(postgres, link, &outdated), None),
    };
    // A test costs a round trip per checkout, and the first statement detects a broken connection anyway.
    options.min_connections(1).test_before_acquire(false).sqlx_logging(false);
    let began = Instant::now();
    loop {
        match sea_orm::Database::connect(options.clone()).await {
            Ok(pool) => {
                let connection = Connection::new(pool, outdated, link.clone(), threads);
                return Ok(Pool { connection, queue, proven: Arc::default() });
            }
            // The process that opens a new file first sets its journal mode; the others retry meanwhile.
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
    // Behind a pooler each transaction sets them instead.
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
    // The lowest byte is the kind of error; the other bytes are details.
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}
