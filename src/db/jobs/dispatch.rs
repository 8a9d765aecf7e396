//! Tracks which jobs were dispatched to the broker, which are pending, and which the broker lost.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect, Select, sea_query::Expr};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        entity::job::{Column, Entity},
        lengths::padded,
        statement::{query, skip_locked},
    },
    domain::{JobId, JobState},
};

/// Marks due jobs as dispatched to the broker and returns their ids.
pub async fn take_undispatched(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<JobId>, Error> {
    let sql = format!(
        "UPDATE jobs SET dispatched_at = $1
         WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' AND dispatched_at IS NULL AND run_at <= $1
                      ORDER BY run_at, id LIMIT $2{})
         RETURNING id",
        skip_locked(connection)
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(connection, &sql, vec![now.0.into(), limit.into()]).await?;
    rows.iter().map(|row| Ok(JobId(row.try_get("", "id")?))).collect()
}

/// Marks jobs that the broker rejected as not dispatched.
pub async fn undo_dispatch(connection: &impl ConnectionTrait, ids: &[JobId]) -> Result<(), Error> {
    Entity::update_many()
        .col_expr(Column::DispatchedAt, Expr::value(Option::<i64>::None))
        .filter(Column::Id.is_in(padded(ids.iter().map(|id| id.0))))
        .filter(Column::State.eq(JobState::Queued.as_str()))
        .exec(connection)
        .await?;
    Ok(())
}

/// Returns whether a job that was dispatched before `before` is still queued.
pub async fn any_dispatched(connection: &impl ConnectionTrait, before: Timestamp) -> Result<bool, Error> {
    let found: Option<i64> = dispatched(before).select_only().column(Column::Id).into_tuple().one(connection).await?;
    Ok(found.is_some())
}

/// Marks up to `limit` jobs for dispatch again.
/// It selects jobs that were dispatched before `before` and are still queued.
pub async fn dispatch_again(connection: &impl ConnectionTrait, before: Timestamp, limit: u64) -> Result<u64, Error> {
    let sql = format!(
        "UPDATE jobs SET dispatched_at = NULL
         WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' AND dispatched_at < $1 ORDER BY id LIMIT $2{})
         RETURNING id",
        skip_locked(connection)
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(query(connection, &sql, vec![before.0.into(), limit.into()]).await?.len() as u64)
}

fn dispatched(before: Timestamp) -> Select<Entity> {
    Entity::find().filter(Column::State.eq(JobState::Queued.as_str())).filter(Column::DispatchedAt.lt(before.0))
}
