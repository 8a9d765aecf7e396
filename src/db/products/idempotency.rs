//! Rows of idempotency keys: what the request that bore one has made.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::{
    clock::Timestamp,
    db::{Error, statement::query},
};

/// A request that is to be carried out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Whose key it is: another caller's same key is another one.
    pub scope: String,
    /// The key, as the client has chosen it.
    pub key: String,
    /// Stands for the whole request: another one of the same key is refused.
    pub fingerprint: String,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Stands for the request.
    pub fingerprint: String,
    /// What it made, as JSON.
    pub made: String,
}

/// Takes the key, until the transaction ends for everybody else: whoever else takes it waits for that. `false` if it was
/// taken before.
///
/// # Errors
/// If the database does not answer.
pub async fn take(connection: &impl ConnectionTrait, once: &Once, now: Timestamp) -> Result<bool, Error> {
    const TAKE: &str = "INSERT INTO idempotency_keys (scope, key, fingerprint, created_at) VALUES ($1, $2, $3, $4)
        ON CONFLICT (scope, key) DO NOTHING";
    let values = [once.scope.as_str().into(), once.key.as_str().into(), once.fingerprint.as_str().into(), now.0.into()];
    Ok(execute(connection, TAKE, values.into()).await? == 1)
}

/// The request that was carried out with this key.
///
/// # Errors
/// If the database does not answer.
pub async fn find(connection: &impl ConnectionTrait, once: &Once) -> Result<Option<Kept>, Error> {
    const FIND: &str =
        "SELECT fingerprint, coalesce(body, '') AS made FROM idempotency_keys WHERE scope = $1 AND key = $2";
    let rows = query(connection, FIND, vec![once.scope.as_str().into(), once.key.as_str().into()]).await?;
    let kept = rows.first().map(|row| {
        Ok::<_, Error>(Kept { fingerprint: row.try_get("", "fingerprint")?, made: row.try_get("", "made")? })
    });
    kept.transpose()
}

/// Notes what the request has made that took its key in this transaction.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(connection: &impl ConnectionTrait, once: &Once, made: String) -> Result<(), Error> {
    const KEEP: &str = "UPDATE idempotency_keys SET body = $1 WHERE scope = $2 AND key = $3";
    let values = vec![made.into(), once.scope.as_str().into(), once.key.as_str().into()];
    execute(connection, KEEP, values).await.map(|_| ())
}

/// Forgets this key if it was taken before `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn forget_old(connection: &impl ConnectionTrait, once: &Once, before: Timestamp) -> Result<(), Error> {
    const FORGET: &str = "DELETE FROM idempotency_keys WHERE scope = $1 AND key = $2 AND created_at < $3";
    let values = [once.scope.as_str().into(), once.key.as_str().into(), before.0.into()];
    execute(connection, FORGET, values.into()).await.map(|_| ())
}

/// Whether a key was taken before `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn any_older(connection: &impl ConnectionTrait, before: Timestamp) -> Result<bool, Error> {
    const ANY: &str = "SELECT 1 AS one FROM idempotency_keys WHERE created_at < $1 LIMIT 1";
    Ok(!query(connection, ANY, vec![before.0.into()]).await?.is_empty())
}

/// Forgets up to `limit` keys that were taken before `before`; answers how many.
///
/// # Errors
/// If the database does not answer.
pub async fn forget(connection: &impl ConnectionTrait, before: Timestamp, limit: i64) -> Result<u64, Error> {
    const FORGET: &str = "DELETE FROM idempotency_keys WHERE (scope, key) IN
        (SELECT scope, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)";
    execute(connection, FORGET, vec![before.0.into(), limit.into()]).await
}

/// The callers that have more than `most` keys, and how many each has.
///
/// # Errors
/// If the database does not answer.
pub async fn callers_with_more(connection: &impl ConnectionTrait, most: i64) -> Result<Vec<(String, i64)>, Error> {
    const MORE: &str =
        "SELECT scope, count(*) AS keys FROM idempotency_keys GROUP BY scope HAVING count(*) > $1 ORDER BY scope";
    let rows = query(connection, MORE, vec![most.into()]).await?;
    rows.iter().map(|row| Ok((row.try_get("", "scope")?, row.try_get("", "keys")?))).collect()
}

/// Forgets the `limit` oldest keys of a caller; answers how many there were.
///
/// # Errors
/// If the database does not answer.
pub async fn forget_oldest(connection: &impl ConnectionTrait, scope: &str, limit: i64) -> Result<u64, Error> {
    const FORGET: &str = "DELETE FROM idempotency_keys WHERE (scope, key) IN
        (SELECT scope, key FROM idempotency_keys WHERE scope = $1 ORDER BY created_at LIMIT $2)";
    execute(connection, FORGET, vec![scope.into(), limit.into()]).await
}

async fn execute(connection: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}
