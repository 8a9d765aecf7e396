//! A transaction in the form that holds behind a pooler in transaction mode, where each may get another session of the server.
//!
//! Such a session keeps nothing for us from one transaction to the next. So each transaction sets its own time-outs, and its
//! statements have no names: a named one would stay behind in a session that others get next. The driver sends a statement in
//! two steps, and only a transaction keeps both in the same session; so even a single statement runs in one.

use sea_orm::{
    DbErr, ExecResult, QueryResult, RuntimeErr, Statement, TransactionOptions, Values,
    sqlx::{self, AssertSqlSafe, Executor as _, PgPool, Postgres, query::Query},
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

/// Rolled back if it is dropped before [`Pooled::commit`].
#[derive(Debug)]
pub(super) struct Pooled(Mutex<sqlx::Transaction<'static, Postgres>>);

impl Pooled {
    /// Begins a transaction that first runs `local`.
    pub(in crate::db) async fn begin(pool: &PgPool, options: TransactionOptions, local: &str) -> Result<Self, DbErr> {
        let isolation = options.isolation_level.map(|level| format!(" ISOLATION LEVEL {level}")).unwrap_or_default();
        let access = options.access_mode.map(|mode| format!(" {mode}")).unwrap_or_default();
        let sql = format!("BEGIN{isolation}{access}; {local}");
        let pool = pool.clone();
        // In a task of its own: the driver loses track of a transaction that is cut off while it begins, and the next user of
        // the connection would be in it.
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

/// Returns the statement for the driver. Turning its cache of statements off is not enough: it would name each all the same.
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
