//! What statements run on: the pool, or one transaction. Both turn what the drivers leave unsaid into errors.
//!
//! PostgreSQL refuses a prepared statement whose columns changed their types since it was prepared (0A000). Outside a
//! transaction such a statement is repeated at once on a new connection; inside one the transaction fails as transient, and the
//! connections that were made before are not used again.
//!
//! Behind a pooler in transaction mode every statement runs in a transaction of its own kind ([`Pooled`]).

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
pub(super) mod presence;
mod revive;
pub(super) mod sqlite;
mod trim;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    TransactionOptions, TransactionTrait as _, entity::prelude::async_trait,
};

use crate::db::{
    connection::{driver::Threads, pooled::Pooled, pooler::Link},
    error::{self, Error},
};

/// When prepared statements were last found to be outdated; connections that are older are closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Outdated(Arc<Mutex<Option<Instant>>>);

impl Outdated {
    /// Whether a connection of this age may still be used.
    pub(super) fn allows(&self, age: Duration) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| since.elapsed() > age)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Notes it if that is what `outcome` says.
    fn is_told_by<T>(&self, outcome: &Result<T, DbErr>) -> bool {
        let outdated = outcome.as_ref().is_err_and(error::is_outdated_statement);
        if outdated {
            self.note();
        }
        outdated
    }
}

/// The pool: each statement runs on whichever connection is free. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    pool: DatabaseConnection,
    outdated: Outdated,
    link: Arc<Link>,
    /// The driver's, on SQLite.
    threads: Option<Threads>,
}

/// A pool that was opened elsewhere: nothing is known of its driver's threads.
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

    /// The pool itself, for what is no statement: listening, say.
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

    /// Begins a transaction of the library's own type, which the migration crate needs. Its statements have names that count
    /// from 1 in each process: behind a pooler, those that another process left in this session go first.
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
        // In a task of its own: the driver loses track of a transaction that is cut off while it begins, and the next user of
        // the connection would be in it.
        let begun = tokio::spawn(async move { pool.begin_with_options(options).await });
        let begun = async { begun.await.map_err(|error| DbErr::Custom(error.to_string()))? };
        answered(self.threads.as_ref(), begun).await
    }
}

/// Runs a statement on the pool; one that was prepared before the schema changed runs once more.
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
        if $self.outdated.is_told_by(&outcome) { $self.pool.$method($statement).await } else { outcome }
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

/// One transaction; rolled back if it is dropped before [`Transaction::commit`].
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
    /// Makes everything that was written durable and visible.
    ///
    /// # Errors
    /// If the database refuses, nothing was written; if the connection breaks off, that is not known.
    pub async fn commit(self) -> Result<(), Error> {
        match self.inner {
            Inner::Session(inner) => answered(self.threads.as_ref(), Box::pin(inner.commit())).await,
            Inner::Pooled(inner) => Ok(inner.commit().await?),
        }
    }

    /// Takes back everything that was written.
    ///
    /// # Errors
    /// If the connection breaks off; then the database takes it back by itself.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.inner {
            Inner::Session(inner) => answered(self.threads.as_ref(), Box::pin(inner.rollback())).await,
            Inner::Pooled(inner) => Ok(inner.rollback().await?),
        }
    }

    /// Lets the transaction be idle for longer than the server allows as a rule.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn stay_idle(&self) -> Result<(), Error> {
        if self.get_database_backend() == DbBackend::Postgres {
            self.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        }
        Ok(())
    }

    /// Returns the library's own transaction for the migration crate: that of [`Connection::begin_for_schema`].
    pub(super) fn inner(&self) -> Result<&DatabaseTransaction, Error> {
        match &self.inner {
            Inner::Session(inner) => Ok(inner),
            Inner::Pooled(_) => Err(Error::Corrupt("the schema is changed in a transaction of another kind".into())),
        }
    }

    async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if let Some(threads) = &self.threads {
            return threads.rows(statement).await;
        }
        let outcome = statement.await;
        self.outdated.is_told_by(&outcome);
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

/// Waits for the begin or the end of a transaction: one that is answered is a true one, unlike rows that end.
async fn answered<T>(threads: Option<&Threads>, command: impl Future<Output = Result<T, DbErr>>) -> Result<T, Error> {
    Ok(match threads {
        Some(threads) => threads.answered(command).await?,
        None => command.await?,
    })
}
