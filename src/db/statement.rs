//! Runs raw SQL statements and hides the differences between the databases.

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement, Value};

use crate::db::Error;

/// Returns the clause that skips locked rows; SQLite needs none, since it has one writer at a time.
pub(super) fn skip_locked(connection: &impl ConnectionTrait) -> &'static str {
    if connection.get_database_backend() == DbBackend::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" }
}

/// Returns the row of a statement that always returns one.
pub(super) async fn query_one(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: Vec<Value>,
) -> Result<QueryResult, Error> {
    query(connection, sql, values).await?.into_iter().next().ok_or_else(Error::no_row)
}

pub(super) async fn query(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<QueryResult>, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.query_all_raw(statement).await?)
}
