//! What statements run on: the pool, or one transaction. Both turn what the drivers leave unsaid into errors.
//!
//! PostgreSQL refuses a prepared statement whose columns changed their types since it was prepared (0A000). Outside a
//! transaction such a statement is repeated at once on a new connection; inside one the transaction fails as transient, and the
//! connections that were made before are not used again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    TransactionOptions, TransactionTrait as _, entity::prelude::async_trait,
};

use crate::db::{
    driver,
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
}

impl Connection {
    pub(super) const fn new(pool: DatabaseConnection, outdated: Outdated) -> Self {
        Self { pool, outdated }
    }

    /// The pool itself, for what is no statement: listening, say.
    pub const fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, options: TransactionOptions) -> Result<Transaction, Error> {
        let begun = self.pool.begin_with_options(options);
        let inner = if self.is_sqlite() { driver::answered(begun).await? } else { begun.await? };
        Ok(Transaction { inner, outdated: self.outdated.clone() })
    }

    fn is_sqlite(&self) -> bool {
        self.pool.get_database_backend() == DbBackend::Sqlite
    }
}

/// Runs a statement on the pool; one that was prepared before the schema changed runs once more.
macro_rules! run {
    ($self:ident, $method:ident, $statement:expr) => {{
        if $self.is_sqlite() {
            return driver::rows($self.pool.$method($statement)).await;
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
    inner: DatabaseTransaction,
    outdated: Outdated,
}

impl Transaction {
    /// Makes everything that was written durable and visible.
    ///
    /// # Errors
    /// If the database refuses, nothing was written; if the connection breaks off, that is not known.
    pub async fn commit(self) -> Result<(), Error> {
        let sqlite = self.is_sqlite();
        end(sqlite, self.inner.commit()).await
    }

    /// Takes back everything that was written.
    ///
    /// # Errors
    /// If the connection breaks off; then the database takes it back by itself.
    pub async fn rollback(self) -> Result<(), Error> {
        let sqlite = self.is_sqlite();
        end(sqlite, self.inner.rollback()).await
    }

    fn is_sqlite(&self) -> bool {
        self.inner.get_database_backend() == DbBackend::Sqlite
    }

    /// For the migration crate, which knows the library's own type alone.
    pub(super) const fn inner(&self) -> &DatabaseTransaction {
        &self.inner
    }

    async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if self.is_sqlite() {
            return driver::rows(statement).await;
        }
        let outcome = statement.await;
        self.outdated.is_told_by(&outcome);
        outcome
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.get_database_backend()
    }

    async fn execute_raw(&self, stmt: Statement) -> Result<ExecResult, DbErr> {
        self.run(self.inner.execute_raw(stmt)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.run(self.inner.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, stmt: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.run(self.inner.query_one_raw(stmt)).await
    }

    async fn query_all_raw(&self, stmt: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.run(self.inner.query_all_raw(stmt)).await
    }
}

/// An end that is answered is a true one, unlike rows that end.
async fn end(sqlite: bool, ending: impl Future<Output = Result<(), DbErr>>) -> Result<(), Error> {
    if sqlite { Ok(driver::answered(ending).await?) } else { Ok(ending.await?) }
}
