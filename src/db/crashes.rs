//! Jobs that somebody died over: a worker, whose lease then runs out, or the decoder that a worker had given the picture to.
//! Both count in `crashes`, so that a picture that kills is given up whoever noticed.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::job::{Column, Entity},
        jobs::{ended, query, skip_locked},
    },
    domain::{ImageId, Job, JobId, JobState},
};

/// A job whose worker stopped giving signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The job.
    pub id: JobId,
    /// The picture it is about.
    pub image_id: ImageId,
    /// The number of the attempt that the worker was at.
    pub attempt: i32,
    /// How many workers and decoders have died over it.
    pub crashes: i32,
}

/// Takes a job from its holder since the decoder died over its picture, and queues it again for `run_at`. Answers how many
/// have died over it by now; `None` if the lease is no longer the caller's.
///
/// # Errors
/// If the database does not answer.
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

/// Takes jobs from workers whose lease ran out before `now`, to be queued again. A crash counts only against pictures
/// that were being decoded. The first time such a picture is due at once; from the second on they are due at different
/// times, so that a harmless one is not decoded beside the culprit again.
///
/// # Errors
/// If the database does not answer.
pub async fn take_expired(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Expired>, Error> {
    let sql = format!(
        "UPDATE jobs SET state = 'queued', crashes = crashes + decoding,
            run_at = CASE WHEN crashes + decoding < 2 THEN run_at ELSE $1 + (1 + id % 10) * 3000000 END,
            decoding = 0, working_on = NULL, dispatched_at = NULL, lease_token = NULL, lease_until = NULL, updated_at = $1
         WHERE id IN (SELECT id FROM jobs WHERE state = 'running' AND lease_until < $1 ORDER BY lease_until LIMIT $2{})
         RETURNING id, image_id, attempt, crashes",
        skip_locked(connection)
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(connection, &sql, vec![now.0.into(), limit.into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(Expired {
                id: JobId(row.try_get("", "id")?),
                image_id: ImageId(row.try_get("", "image_id")?),
                attempt: row.try_get("", "attempt")?,
                crashes: row.try_get("", "crashes")?,
            })
        })
        .collect()
}

/// Ends a job that workers died over too often; nobody holds it.
///
/// # Errors
/// If the database does not answer.
pub async fn bury_unheld(
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
