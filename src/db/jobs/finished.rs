//! Counts and deletes finished jobs, using an index that contains only them.

use sea_orm::ConnectionTrait;

use crate::{
    clock::Timestamp,
    db::{
        Error,
        statement::{query, query_one, skip_locked},
    },
};

/// Returns how many jobs finished since `since`, counting at most 100,001.
pub async fn count(connection: &impl ConnectionTrait, since: Timestamp) -> Result<u64, Error> {
    const COUNT: &str = "SELECT count(*) AS finished FROM
        (SELECT 1 FROM jobs WHERE state = 'done' AND updated_at >= $1 LIMIT 100001) AS few";
    let finished: i64 = query_one(connection, COUNT, vec![since.0.into()]).await?.try_get("", "finished")?;
    Ok(finished.unsigned_abs())
}

/// Returns whether a job finished before `before`.
pub async fn any(connection: &impl ConnectionTrait, before: Timestamp) -> Result<bool, Error> {
    const ANY: &str = "SELECT id FROM jobs WHERE state = 'done' AND updated_at < $1 ORDER BY updated_at, id LIMIT 1";
    Ok(!query(connection, ANY, vec![before.0.into()]).await?.is_empty())
}

/// Deletes up to `limit` old jobs and returns their number.
/// It deletes jobs that finished before `before`, oldest first.
pub async fn delete_expired(connection: &impl ConnectionTrait, before: Timestamp, limit: u64) -> Result<u64, Error> {
    let sql = format!(
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'done' AND updated_at < $1
            ORDER BY updated_at, id LIMIT $2{}) RETURNING id",
        skip_locked(connection)
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(query(connection, &sql, vec![before.0.into(), limit.into()]).await?.len() as u64)
}
