//! Rows of idempotency keys: what was answered to the request that bore one.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::{
    clock::Timestamp,
    db::{Error, jobs::query},
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

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Stands for the request that was answered.
    pub fingerprint: String,
    /// The answer's status.
    pub status: i32,
    /// Where what was made is found.
    pub location: Option<String>,
    /// The answer's body.
    pub body: String,
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

/// What was answered to the request with this key.
///
/// # Errors
/// If the database does not answer.
pub async fn find(connection: &impl ConnectionTrait, once: &Once) -> Result<Option<Kept>, Error> {
    const FIND: &str = "SELECT fingerprint, coalesce(status, 0) AS status, location, coalesce(body, '') AS body
        FROM idempotency_keys WHERE scope = $1 AND key = $2";
    let rows = query(connection, FIND, vec![once.scope.as_str().into(), once.key.as_str().into()]).await?;
    let kept = rows.first().map(|row| {
        Ok::<_, Error>(Kept {
            fingerprint: row.try_get("", "fingerprint")?,
            status: row.try_get("", "status")?,
            location: row.try_get("", "location")?,
            body: row.try_get("", "body")?,
        })
    });
    kept.transpose()
}

/// Notes the answer to the request that has taken its key in this transaction.
///
/// # Errors
/// If the database does not answer.
pub async fn keep(connection: &impl ConnectionTrait, once: &Once, kept: Kept) -> Result<(), Error> {
    const KEEP: &str =
        "UPDATE idempotency_keys SET status = $1, location = $2, body = $3 WHERE scope = $4 AND key = $5";
    let values = [
        kept.status.into(),
        kept.location.into(),
        kept.body.into(),
        once.scope.as_str().into(),
        once.key.as_str().into(),
    ];
    execute(connection, KEEP, values.into()).await.map(|_| ())
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

async fn execute(connection: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64, Error> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}
