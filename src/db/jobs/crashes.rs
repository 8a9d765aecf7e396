//! Counts decoder crashes per job and ends jobs with too many.
//!
//! Crashed workers are detected by their leases: see `leases`. Both kinds count in `crashes`, so an image that crashes
//! its decoder is given up, no matter how the crash was detected.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::job::{Column, Entity},
        jobs::ended,
        statement::query,
    },
    domain::{Job, JobId, JobState},
};

/// Requeues a job for `run_at` because its decoder crashed, and releases its lease.
/// Returns the job's crash count, or `None` if the caller no longer holds the lease.
pub async fn crash(
    connection: &impl ConnectionTrait,
    job: &Job,
    (code, message): (ErrorCode, &str),
    run_at: Timestamp,
    now: Timestamp,
) -> Result<Option<i32>, Error> {
    const CRASH: &str = "UPDATE jobs SET state = 'queued', crashes = crashes + 1, run_at = $1, error_code = $2,
            error_message = $3, decoding = 0, working_on = NULL, dispatched_at = NULL, lease_token = NULL,
            lease_until = NULL, updated_at = $4
         WHERE id = $5 AND state = 'running' AND lease_token = $6
         RETURNING crashes";
    let values = vec![
        run_at.0.into(),
        code.as_str().into(),
        message.into(),
        now.0.into(),
        job.id.0.into(),
        job.lease_token.as_str().into(),
    ];
    let rows = query(connection, CRASH, values).await?;
    Ok(rows.first().map(|row| row.try_get("", "crashes")).transpose()?)
}

/// Ends a job without a lease that crashed too many workers.
pub async fn mark_dead_without_lease(
    connection: &impl ConnectionTrait,
    id: JobId,
    error: (ErrorCode, &str),
    now: Timestamp,
) -> Result<(), Error> {
    Entity::update_many()
        .set(ended(JobState::Dead, Some(error), now))
        .filter(Column::Id.eq(id.0))
        .filter(Column::State.eq(JobState::Queued.as_str()))
        .exec(connection)
        .await?;
    Ok(())
}
