//! The table of idempotency keys and the results of their requests.

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use crate::{
    clock::Timestamp,
    db::{Error, statement::query},
};

/// A request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The principal that the key belongs to; the same key of another principal is a different key.
    pub scope: String,
    /// The key that the client chose.
    pub key: String,
    /// Hash of the whole request: another request with the same key is rejected.
    pub fingerprint: String,
}

/// A completed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Hash of the request.
    pub fingerprint: String,
    /// Its result as JSON.
    pub made: String,
}

/// Inserts the key; `false` if it already exists.
/// Another request with the same key waits until this transaction ends.
pub async fn take(connection: &impl ConnectionTrait, once: &Once, now: Timestamp) -> Result<bool, Error> {
    const TAKE: &str = "INSERT INTO idempotency_keys (scope, key, fingerprint, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (scope, key) DO NOTHING";
    let values = [once.scope.as_str().into(), once.key.as_str().into(), once.fingerprint.as_str().into(), now.0.into()];
    Ok(execute(connection, TAKE, values.into()).await? == 1)
}

/// Returns the completed request with this key, locked until this transaction ends.
pub async fn find(connection: &impl ConnectionTrait, once: &Once) -> Result<Option<Kept>, Error> {
    const FIND: &str =
        "SELECT fingerprint, coalesce(body, '') AS made FROM idempotency_keys WHERE scope = $1 AND key = $2";
    // SQLite locks the whole database for a write.
    let lock = if connection.get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
    let rows =
        query(connection, &format!("{FIND}{lock}"), vec![once.scope.as_str().into(), once.key.as_str().into()]).await?;
    let kept = rows.first().map(|row| {
        Ok::<_, Error>(Kept { fingerprint: row.try_get("", "fingerprint")?, made: row.try_get("", "made")? })
    });
    kept.transpose()
}

/// Stores the result of the request that inserted its key in this transaction.
pub async fn keep(connection: &impl ConnectionTrait, once: &Once, made: String) -> Result<(), Error> {
    const KEEP: &str = "UPDATE idempotency_keys SET body = $1 WHERE scope = $2 AND key = $3";
    let values = vec![made.into(), once.scope.as_str().into(), once.key.as_str().into()];
    execute(connection, KEEP, values).await.map(|_| ())
}

/// Deletes this key if it was stored before `before`.
pub async fn delete_if_expired(connection: &impl ConnectionTrait, once: &Once, before: Timestamp) -> Result<(), Error> {
    const DELETE: &str = "DELETE FROM idempotency_keys WHERE scope = $1 AND key = $2 AND created_at < $3";
    let values = [once.scope.as_str().into(), once.key.as_str().into(), before.0.into()];
    execute(connection, DELETE, values.into()).await.map(|_| ())
}

/// Returns whether a key was stored before `before`.
pub async fn any_older(connection: &impl ConnectionTrait, before: Timestamp) -> Result<bool, Error> {
    const ANY: &str = "SELECT 1 AS one FROM idempotency_keys WHERE created_at < $1 LIMIT 1";
    Ok(!query(connection, ANY, vec![before.0.into()]).await?.is_empty())
}

/// Deletes up to `limit` keys that were stored before `before`, and returns their number.
pub async fn delete_expired(connection: &impl ConnectionTrait, before: Timestamp, limit: i64) -> Result<u64, Error> {
    const DELETE: &str = "DELETE FROM idempotency_keys WHERE (scope, key) IN
        (SELECT scope, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)";
    execute(connection, DELETE, vec![before.0.into(), limit.into()]).await
}

/// Returns the principals that have more than `most` keys, with the number of keys.
pub async fn callers_with_more(connection: &impl ConnectionTrait, most: i64) -> Result<Vec<(String, i64)>, Error> {
    const MORE: &str =
        "SELECT scope, count(*) AS keys FROM idempotency_keys GROUP BY scope HAVING count(*) > $1 ORDER BY scope";
    let rows = query(connection, MORE, vec![most.into()]).await?;
    rows.iter().map(|row| Ok((row.try_get("", "scope")?, row.try_get("", "keys")?))).collect()
}

/// Deletes the `limit` oldest keys of a principal, and returns their number.
pub async fn delete_oldest(connection: &impl ConnectionTrait, scope: &str, limit: i64) -> Result<u64, Error> {
    const DELETE: &str = "DELETE FROM idempotency_keys WHERE (scope, key) IN
        (SELECT scope, key FROM idempotency_keys WHERE scope = $1 ORDER BY created_at LIMIT $2)";
    execute(connection, DELETE, vec![scope.into(), limit.into()]).await
}

async fn execute(connection: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}
