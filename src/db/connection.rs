//! What statements run on: [`Connection`] for single ones, [`Transaction`] for several. Both are sea-orm's own, or have the
//! form that holds behind a pooler in transaction mode, where each transaction may get another connection of the server.
//!
//! There a session keeps nothing from one transaction to the next. So every statement runs inside a transaction, which sets
//! its own time-outs, and its prepared form has no name: a name would stay behind on a connection that others get next. The
//! driver sends a statement in two steps, and only a transaction keeps both on the same connection of the server.

use std::{fmt, sync::Arc};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, IsolationLevel,
    QueryResult, RuntimeErr, Statement, TransactionOptions, TransactionTrait as _, Values,
    prelude::async_trait,
    sqlx::{self, AssertSqlSafe, Executor as _, PgPool, Postgres, query::Query},
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

/// Runs single statements, each by itself; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    pool: DatabaseConnection,
    /// What each transaction sets behind a pooler in transaction mode; `None` where the session keeps it.
    local: Option<Arc<str>>,
    listen: Listen,
}

/// Where PostgreSQL's notifications come from.
#[derive(Clone, Debug)]
pub(super) enum Listen {
    /// From the server that statements go to.
    Here,
    /// From the server at this address, which no pooler stands before.
    At(Arc<str>),
    /// From nowhere: a pooler in transaction mode passes no notifications on.
    Nowhere,
}

/// Several statements that take effect together; rolled back if dropped before [`Transaction::commit`].
pub struct Transaction(Inner);

enum Inner {
    Session(DatabaseTransaction),
    Pooled(Mutex<sqlx::Transaction<'static, Postgres>>),
}

impl From<DatabaseConnection> for Connection {
    fn from(pool: DatabaseConnection) -> Self {
        Self { pool, local: None, listen: Listen::Here }
    }
}

impl Connection {
    pub(super) fn new(pool: DatabaseConnection, local: Option<Arc<str>>, listen: Listen) -> Self {
        Self { pool, local, listen }
    }

    /// Returns the pool itself, for what must not pass through [`ConnectionTrait`].
    pub(super) fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    pub(super) fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Whether each transaction may get another connection of the server.
    pub(super) fn is_pooled(&self) -> bool {
        self.local.is_some()
    }

    /// Asks whether the database answers, without a statement.
    pub(super) async fn ping(&self) -> Result<(), DbErr> {
        self.pool.ping().await
    }

    pub(super) async fn begin(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        let Some(local) = &self.local else {
            return Ok(Transaction(Inner::Session(self.pool.begin_with_options(options).await?)));
        };
        let mut sql = "BEGIN".to_owned();
        if let Some(IsolationLevel::RepeatableRead) = options.isolation_level {
            sql.push_str(" ISOLATION LEVEL REPEATABLE READ");
        }
        if let Some(mode) = options.access_mode {
            sql.push_str(&format!(" {mode}"));
        }
        let sql = format!("{sql}; {local}");
        let pool: PgPool = self.pool.get_postgres_connection_pool().clone();
        // In a task of its own: the driver forgets a transaction whose beginning is given up half-way, and the next user of
        // the connection would be in it.
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(sql)).await }).await;
        let begun = begun.map_err(|error| DbErr::Custom(error.to_string()))?;
        let transaction = begun.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
        Ok(Transaction(Inner::Pooled(Mutex::new(transaction))))
    }

    async fn begin_one(&self) -> Result<Transaction, DbErr> {
        self.begin(TransactionOptions::default()).await
    }
}

impl Transaction {
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        match self.0 {
            Inner::Session(transaction) => transaction.commit().await,
            Inner::Pooled(transaction) => transaction.into_inner().commit().await.map_err(of_execution),
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Connection {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        if !self.is_pooled() {
            return self.pool.execute_raw(statement).await;
        }
        let transaction = self.begin_one().await?;
        let done = transaction.execute_raw(statement).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// One message to the server, which runs as one transaction anyway.
    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.pool.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        if !self.is_pooled() {
            return self.pool.query_one_raw(statement).await;
        }
        let transaction = self.begin_one().await?;
        let row = transaction.query_one_raw(statement).await?;
        transaction.commit().await?;
        Ok(row)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        if !self.is_pooled() {
            return self.pool.query_all_raw(statement).await;
        }
        let transaction = self.begin_one().await?;
        let rows = transaction.query_all_raw(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Inner::Session(transaction) => transaction.get_database_backend(),
            Inner::Pooled(_) => DbBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Inner::Session(transaction) => transaction.execute_raw(statement).await,
            Inner::Pooled(transaction) => {
                let done = unnamed(&statement).execute(&mut **transaction.lock().await).await;
                done.map(ExecResult::from).map_err(of_execution)
            }
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Inner::Session(transaction) => transaction.execute_unprepared(sql).await,
            Inner::Pooled(transaction) => {
                let done = transaction.lock().await.execute(AssertSqlSafe(sql.to_owned())).await;
                done.map(ExecResult::from).map_err(of_execution)
            }
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.0 {
            Inner::Session(transaction) => transaction.query_one_raw(statement).await,
            Inner::Pooled(transaction) => {
                let row = unnamed(&statement).fetch_optional(&mut **transaction.lock().await).await;
                Ok(row.map_err(of_query)?.map(QueryResult::from))
            }
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.0 {
            Inner::Session(transaction) => transaction.query_all_raw(statement).await,
            Inner::Pooled(transaction) => {
                let rows = unnamed(&statement).fetch_all(&mut **transaction.lock().await).await;
                Ok(rows.map_err(of_query)?.into_iter().map(QueryResult::from).collect())
            }
        }
    }
}

/// The statement for the driver. Turning the driver's cache off is not enough: it would name each statement all the same.
fn unnamed(statement: &Statement) -> Query<'_, Postgres, SqlxValues> {
    let values = statement.values.clone().unwrap_or_else(|| Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values)).persistent(false)
}

fn of_execution(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

fn of_query(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}
