//! Jobs that are done: how many there were lately, and their end when nobody asks for them any more. All of it goes through
//! an index that holds none but them.

use sea_orm::ConnectionTrait;

use crate::{
    clock::Timestamp,
    db::{
        Error,
        statement::{query, query_one, skip_locked},
    },
};

/// How many jobs have been done since `since`; no more than 100,001 are counted.
///
/// # Errors
/// If the database does not answer.
pub async fn count(connection: &impl ConnectionTrait, since: Timestamp) -> Result<u64, Error> {
    const COUNT: &str = "SELECT count(*) AS finished FROM
        (SELECT 1 FROM jobs WHERE state = 'done' AND updated_at >= $1 LIMIT 100001) AS few";
    let finished: i64 = query_one(connection, COUNT, vec![since.0.into()]).await?.try_get("", "finished")?;
    Ok(finished.unsigned_abs())
}

/// Whether a job was done before `before`.
///
/// # Errors
/// If the database does not answer.
pub async fn any(connection: &impl ConnectionTrait, before: Timestamp) -> Result<bool, Error> {
    const ANY: &str = "SELECT id FROM jobs WHERE state = 'done' AND updated_at < $1 ORDER BY updated_at, id LIMIT 1";
    Ok(!query(connection, ANY, vec![before.0.into()]).await?.is_empty())
}

/// Removes up to `limit` jobs that were done before `before`, the oldest first; answers how many.
///
/// # Errors
/// If the database does not answer.
pub async fn forget(connection: &impl ConnectionTrait, before: Timestamp, limit: u64) -> Result<u64, Error> {
    let sql = format!(
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'done' AND updated_at < $1
            ORDER BY updated_at, id LIMIT $2{}) RETURNING id",
        skip_locked(connection)
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(query(connection, &sql, vec![before.0.into(), limit.into()]).await?.len() as u64)
}
