//! A separate PostgreSQL connection for a statement that many requests depend on.
//!
//! It does not wait for the pool, and it shows whether the server accepts connections.

use std::{io, time::Duration};

use sea_orm::{
    DbErr, QueryResult, RuntimeErr,
    sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, PgConnection},
};
use tokio::{sync::Mutex, time::timeout};

use crate::db::{Config, Database, Error};

/// The connection, opened at first use and reopened after a failure.
#[derive(Debug, Default)]
pub struct Beside(Mutex<Option<PgConnection>>);

/// The reason for a missing answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The server refuses or closes connections, so no other process has one either.
    #[error("the database refuses connections")]
    Refused(#[source] Error),
    /// This process got no answer, but another one may get it.
    #[error("the database does not answer")]
    Silent(#[source] Error),
}

/// Time limit for connecting and the answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

impl Database {
    /// Runs a statement without parameters that returns one row.
    ///
    /// # Errors
    /// [`Unanswered`]; always on SQLite, which has no server.
    pub async fn ask_beside(&self, beside: &Beside, sql: &str) -> Result<QueryResult, Unanswered> {
        if let Config::Sqlite { .. } = self.shared.config {
            return Err(Unanswered::Silent(Error::Unavailable(DbErr::Custom("SQLite has no server".into()))));
        }
        let answer = async {
            let mut kept = beside.0.lock().await;
            if let Some(mut connection) = kept.take()
                && let Ok(row) = ask(&mut connection, sql).await
            {
                *kept = Some(connection);
                return Ok(row);
            }
            let options = self.shared.connection().pool().get_postgres_connection_pool().connect_options();
            let mut connection = PgConnection::connect_with(&options).await.map_err(of_connecting)?;
            let row = ask(&mut connection, sql).await.map_err(|error| Unanswered::Silent(of_driver(error)))?;
            *kept = Some(connection);
            Ok(row)
        };
        let late = |_| Unanswered::Silent(Error::timed_out(ANSWER_LIMIT));
        timeout(ANSWER_LIMIT, answer).await.map_err(late)?
    }
}

/// Uses a single message, which also works behind a pooler in transaction mode.
async fn ask(connection: &mut PgConnection, sql: &str) -> Result<QueryResult, sqlx::Error> {
    connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.map(QueryResult::from)
}

fn of_connecting(error: sqlx::Error) -> Unanswered {
    /// PostgreSQL is shutting down, has crashed, or is still starting.
    const OPERATOR_INTERVENTION: &str = "57P";
    let refused = match &error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotFound
        ),
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| code.starts_with(OPERATOR_INTERVENTION)),
        _ => false,
    };
    let error = of_driver(error);
    if refused { Unanswered::Refused(error) } else { Unanswered::Silent(error) }
}

fn of_driver(error: sqlx::Error) -> Error {
    Error::Unavailable(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
}
