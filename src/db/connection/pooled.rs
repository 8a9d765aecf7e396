//! Transactions that work behind a pooler in transaction mode.
//!
//! Such a pooler may give each transaction another server session, which keeps no state of this client. So each
//! transaction sets its own timeouts, and its statements are unnamed: a named one would remain in a session that
//! another client gets next. The driver sends a statement in two messages, and only a transaction keeps both in the
//! same session; so even a single statement runs in one.

use sea_orm::{
    DbErr, ExecResult, QueryResult, RuntimeErr, Statement, TransactionOptions, Values,
    sqlx::{self, AssertSqlSafe, Executor as _, PgPool, Postgres, query::Query},
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

/// A transaction, rolled back if dropped before [`Pooled::commit`].
#[derive(Debug)]
pub(super) struct Pooled(Mutex<sqlx::Transaction<'static, Postgres>>);

impl Pooled {
    /// Begins a transaction and runs `local` in it.
    pub(in crate::db) async fn begin(pool: &PgPool, options: TransactionOptions, local: &str) -> Result<Self, DbErr> {
        let isolation = options.isolation_level.map(|level| format!(" ISOLATION LEVEL {level}")).unwrap_or_default();
        let access = options.access_mode.map(|mode| format!(" {mode}")).unwrap_or_default();
        let sql = format!("BEGIN{isolation}{access}; {local}");
        let pool = pool.clone();
        // Runs in a separate task: the driver loses track of a transaction that is canceled while it begins, and the
        // next user of the connection would be inside it.
        let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(sql)).await }).await;
        let begun = begun.map_err(|error| DbErr::Custom(error.to_string()))?;
        Ok(Self(Mutex::new(begun.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?)))
    }

    pub(in crate::db) async fn commit(self) -> Result<(), DbErr> {
        self.0.into_inner().commit().await.map_err(of_execution)
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        self.0.into_inner().rollback().await.map_err(of_execution)
    }

    pub(in crate::db) async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let done = unnamed(&statement).execute(&mut **self.0.lock().await).await;
        done.map(ExecResult::from).map_err(of_execution)
    }

    pub(in crate::db) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let done = self.0.lock().await.execute(AssertSqlSafe(sql.to_owned())).await;
        done.map(ExecResult::from).map_err(of_execution)
    }

    pub(in crate::db) async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let row = unnamed(&statement).fetch_optional(&mut **self.0.lock().await).await;
        Ok(row.map_err(of_query)?.map(QueryResult::from))
    }

    pub(in crate::db) async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let rows = unnamed(&statement).fetch_all(&mut **self.0.lock().await).await;
        Ok(rows.map_err(of_query)?.into_iter().map(QueryResult::from).collect())
    }
}

/// Returns an unnamed statement for the driver.
/// Disabling the driver's statement cache is not enough: it would still name each statement.
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
