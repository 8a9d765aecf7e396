//! Runs statements on the pool or in one transaction, and detects errors that the drivers hide.
//!
//! PostgreSQL rejects a prepared statement if the types of its columns changed since it was prepared (0A000). Outside a
//! transaction such a statement is repeated at once on a new connection. Inside one the transaction fails as transient,
//! and older connections are not used again.
//!
//! Behind a pooler in transaction mode every statement runs in a `Pooled` transaction.

pub(super) mod beside;
mod clock;
pub(super) mod config;
pub(super) mod connect;
mod demand;
mod driver;
mod file;
mod file_identity;
pub mod installation;
pub mod notifications;
mod pooled;
pub(super) mod pooler;
mod revive;
pub(super) mod sqlite;
mod trim;
pub(super) mod watchdog;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    TransactionOptions, TransactionTrait as _, entity::prelude::async_trait,
};

use crate::db::{
    connection::{driver::Threads, pooled::Pooled, pooler::Link},
    error::{self, Error},
};

/// The time at which prepared statements were last found outdated; older connections are closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Outdated(Arc<Mutex<Option<Instant>>>);

impl Outdated {
    /// Returns whether a connection of this age may still be used.
    pub(super) fn allows(&self, age: Duration) -> bool {
        let since = *self.0.lock();
        since.is_none_or(|since| since.elapsed() > age)
    }

    fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Records the time if `outcome` reports an outdated statement.
    fn is_reported_by<T>(&self, outcome: &Result<T, DbErr>) -> bool {
        let outdated = outcome.as_ref().is_err_and(error::is_outdated_statement);
        if outdated {
            self.note();
        }
        outdated
    }
}

/// The pool: each statement runs on any free connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    pool: DatabaseConnection,
    outdated: Outdated,
    link: Arc<Link>,
    /// The driver's threads, on SQLite.
    threads: Option<Threads>,
}

/// Wraps a pool that was opened elsewhere, so its driver threads are unknown.
impl From<DatabaseConnection> for Connection {
    fn from(pool: DatabaseConnection) -> Self {
        Self::new(pool, Outdated::default(), Arc::default(), None)
    }
}

impl Connection {
    pub(super) const fn new(
        pool: DatabaseConnection,
        outdated: Outdated,
        link: Arc<Link>,
        threads: Option<Threads>,
    ) -> Self {
        Self { pool, outdated, link, threads }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Returns the pool itself, for uses other than statements, such as listening.
    pub const fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, options: TransactionOptions) -> Result<Transaction, Error> {
        let inner = match &self.link.local {
            Some(local) => {
                Inner::Pooled(Pooled::begin(self.pool.get_postgres_connection_pool(), options, local).await?)
            }
            None => Inner::Session(self.begin_session(options).await?),
        };
        Ok(self.transaction(inner))
    }

    /// Begins a transaction of sea-orm's own type, which the migration crate needs.
    /// Its statements have names that count from 1 in each process. So behind a pooler it first deallocates those that
    /// another process left in the session.
    pub(super) async fn begin_for_schema(&self) -> Result<Transaction, Error> {
        let inner = self.begin_session(TransactionOptions::default()).await?;
        if let Some(local) = &self.link.local {
            inner.execute_unprepared(&format!("DEALLOCATE ALL; {local}")).await?;
        }
        Ok(self.transaction(Inner::Session(inner)))
    }

    fn transaction(&self, inner: Inner) -> Transaction {
        Transaction { inner, outdated: self.outdated.clone(), threads: self.threads.clone() }
    }

    async fn begin_session(&self, options: TransactionOptions) -> Result<DatabaseTransaction, Error> {
        let pool = self.pool.clone();
        // Runs in a separate task: the driver loses track of a transaction that is canceled while it begins, and the
        // next user of the connection would be inside it.
        let begun = tokio::spawn(async move { pool.begin_with_options(options).await });
        let begun = async { begun.await.map_err(|error| DbErr::Custom(error.to_string()))? };
        answered(self.threads.as_ref(), begun).await
    }
}

/// Runs a statement on the pool; one that was prepared before a schema change runs once more.
macro_rules! run {
    ($self:ident, $method:ident, $statement:expr) => {{
        if let Some(threads) = &$self.threads {
            return threads.rows($self.pool.$method($statement)).await;
        }
        if let Some(local) = &$self.link.local {
            let pool = $self.pool.get_postgres_connection_pool();
            let transaction = Pooled::begin(pool, TransactionOptions::default(), local).await?;
            let outcome = transaction.$method($statement).await?;
            return transaction.commit().await.map(|()| outcome);
        }
        let outcome = $self.pool.$method($statement.clone()).await;
        if $self.outdated.is_reported_by(&outcome) { $self.pool.$method($statement).await } else { outcome }
    }};
}

#[async_trait::async_trait]
impl ConnectionTrait for Connection {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        run!(self, execute_raw, stmt)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        run!(self, execute_unprepared, sql)
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        run!(self, query_one_raw, stmt)
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        run!(self, query_all_raw, stmt)
    }
}

/// A transaction, rolled back if dropped before [`Transaction::commit`].
#[derive(Debug)]
pub struct Transaction {
    inner: Inner,
    outdated: Outdated,
    threads: Option<Threads>,
}

#[derive(Debug)]
enum Inner {
    Session(DatabaseTransaction),
    Pooled(Pooled),
}

impl Transaction {
    /// Commits the transaction: its writes become durable and visible.
    ///
    /// # Errors
    /// If the database rejects the commit, nothing was written. If the connection fails, the result is unknown.
    pub async fn commit(self) -> Result<(), Error> {
        match self.inner {
            Inner::Session(inner) => answered(self.threads.as_ref(), Box::pin(inner.commit())).await,
            Inner::Pooled(inner) => Ok(inner.commit().await?),
        }
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// If the connection fails; the database then rolls back by itself.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.inner {
            Inner::Session(inner) => answered(self.threads.as_ref(), Box::pin(inner.rollback())).await,
            Inner::Pooled(inner) => Ok(inner.rollback().await?),
        }
    }

    /// Allows the transaction to be idle for longer than the server's usual limit.
    pub async fn stay_idle(&self) -> Result<(), Error> {
        if self.get_database_backend() == DbBackend::Postgres {
            self.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        }
        Ok(())
    }

    /// Returns sea-orm's own transaction for the migration crate, from [`Connection::begin_for_schema`].
    pub(super) fn inner(&self) -> Result<&DatabaseTransaction, Error> {
        match &self.inner {
            Inner::Session(inner) => Ok(inner),
            Inner::Pooled(_) => Err(Error::Corrupt("the schema must be changed in a session transaction".into())),
        }
    }

    async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if let Some(threads) = &self.threads {
            return threads.rows(statement).await;
        }
        let outcome = statement.await;
        self.outdated.is_reported_by(&outcome);
        outcome
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match &self.inner {
            Inner::Session(inner) => inner.get_database_backend(),
            Inner::Pooled(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        match &self.inner {
            Inner::Session(inner) => self.run(inner.execute_raw(stmt)).await,
            Inner::Pooled(inner) => inner.execute_raw(stmt).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match &self.inner {
            Inner::Session(inner) => self.run(inner.execute_unprepared(sql)).await,
            Inner::Pooled(inner) => inner.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.inner {
            Inner::Session(inner) => self.run(inner.query_one_raw(stmt)).await,
            Inner::Pooled(inner) => inner.query_one_raw(stmt).await,
        }
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.inner {
            Inner::Session(inner) => self.run(inner.query_all_raw(stmt)).await,
            Inner::Pooled(inner) => inner.query_all_raw(stmt).await,
        }
    }
}

/// Waits for the begin or end of a transaction.
/// Unlike rows, which may simply end after a panic, an answer to these is always complete.
async fn answered<T>(threads: Option<&Threads>, command: impl Future<Output = Result<T, DbErr>>) -> Result<T, Error> {
    Ok(match threads {
        Some(threads) => threads.answered(command).await?,
        None => command.await?,
    })
}
