//! The `jobs` table, the queue of record.
//!
//! Every claim and every end of a job is one fenced statement.

pub mod attempts;
pub mod claims;
pub mod crashes;
pub mod dead_letters;
pub mod dispatch;
pub mod finished;
pub mod leases;
pub mod reruns;
pub mod waiting;

use std::time::Duration;

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryResult, QuerySelect, UpdateMany,
    sea_query::{Expr, ExprTrait as _, SimpleExpr},
};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::job::{ActiveModel, Column, Entity},
        lengths::parts,
        statement::query_one,
    },
    domain::{Depth, ImageId, Job, JobId, JobPayload, JobState, UserId},
};

/// Duration of a lease without a heartbeat, measured by the observer's clock.
pub const LEASE: Duration = Duration::from_secs(15);

/// A job to insert.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// The job's image.
    pub image_id: ImageId,
    /// The image's generation.
    pub generation: i32,
    /// The task.
    pub payload: &'a JobPayload,
    /// The id of the request that created the job.
    pub request_id: Option<&'a str>,
    /// The owner of the image.
    pub user_id: UserId,
    /// The host of the image's URL; `None` for an upload.
    pub host: Option<String>,
}

/// Inserts jobs that are due now.
pub async fn insert_all(connection: &impl ConnectionTrait, jobs: &[NewJob<'_>], now: Timestamp) -> Result<(), Error> {
    for some in parts(jobs) {
        let rows = some.iter().map(|job| row_of(job, now)).collect::<Result<Vec<_>, _>>()?;
        Entity::insert_many(rows).exec_without_returning(connection).await?;
    }
    Ok(())
}

/// Extends a lease; `false` if the caller no longer holds it.
pub async fn extend_lease(connection: &impl ConnectionTrait, job: &Job, until: Timestamp) -> Result<bool, Error> {
    let held = Entity::update_many().col_expr(Column::LeaseUntil, grown(until));
    update_held(connection, job, held).await
}

/// Marks the job as decoding, stores its deduplication key and extends the lease.
/// Returns `false` if the caller no longer holds the lease. With `blamable`, a crash of the worker counts against the
/// image.
///
/// # Errors
/// [`Error::Duplicate`] if another job is decoding the same content.
pub async fn begin_decoding(
    connection: &impl ConnectionTrait,
    job: &Job,
    key: &str,
    blamable: bool,
    until: Timestamp,
) -> Result<bool, Error> {
    let row = ActiveModel {
        decoding: Set(i32::from(blamable)),
        working_on: Set(Some(key.to_owned())),
        ..ActiveModel::default()
    };
    update_held(connection, job, Entity::update_many().set(row).col_expr(Column::LeaseUntil, grown(until))).await
}

/// Returns whether another job is decoding this content.
pub async fn another_job_decodes(connection: &impl ConnectionTrait, key: &str, job: &Job) -> Result<bool, Error> {
    let at_it = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::WorkingOn.eq(key))
        .filter(Column::Id.ne(job.id.0))
        .into_tuple::<i64>();
    Ok(at_it.one(connection).await?.is_some())
}

/// Ends a job whose results are stored; `false` if the caller no longer holds the lease.
pub async fn finish(connection: &impl ConnectionTrait, job: &Job, now: Timestamp) -> Result<bool, Error> {
    update_held(connection, job, Entity::update_many().set(ended(JobState::Done, None, now))).await
}

/// Ends a job that failed for good; `false` if the caller no longer holds the lease.
pub async fn mark_dead(
    connection: &impl ConnectionTrait,
    job: &Job,
    error: (ErrorCode, &str),
    now: Timestamp,
) -> Result<bool, Error> {
    update_held(connection, job, Entity::update_many().set(ended(JobState::Dead, Some(error), now))).await
}

/// Requeues a job for `run_at` after a failed attempt; `false` if the caller no longer holds the lease.
pub async fn retry(
    connection: &impl ConnectionTrait,
    job: &Job,
    error: (ErrorCode, &str),
    run_at: Timestamp,
    now: Timestamp,
) -> Result<bool, Error> {
    let row =
        ActiveModel { run_at: Set(run_at.0), dispatched_at: Set(None), ..ended(JobState::Queued, Some(error), now) };
    update_held(connection, job, Entity::update_many().set(row)).await
}

/// Requeues a job as if it had not been claimed; `false` if the caller no longer holds the lease.
pub async fn release(connection: &impl ConnectionTrait, job: &Job, now: Timestamp) -> Result<bool, Error> {
    let row =
        ActiveModel { attempt: Set(job.attempt - 1), dispatched_at: Set(None), ..ended(JobState::Queued, None, now) };
    // Keep the old position in the queue, unless the clock has gone back since.
    let place = Expr::case(Expr::col(Column::RunAt).gt(now.0), now.0).finally(Expr::col(Column::RunAt));
    update_held(connection, job, Entity::update_many().set(row).col_expr(Column::RunAt, place.into())).await
}

/// Returns the depth of the queue, counting at most 100,001 jobs per state.
/// It reads only the index of queued, running and dead jobs.
pub async fn depth(connection: &impl ConnectionTrait) -> Result<Depth, Error> {
    const DEPTH: &str = "SELECT
        (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 100001) AS few) AS queued,
        (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'running' LIMIT 100001) AS few) AS running,
        (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 'dead' LIMIT 100001) AS few) AS dead,
        (SELECT created_at FROM jobs WHERE state = 'queued' ORDER BY run_at, id LIMIT 1) AS oldest";
    let row = query_one(connection, DEPTH, Vec::new()).await?;
    let number = |name| row.try_get::<i64>("", name).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Depth {
        queued: number("queued")?,
        running: number("running")?,
        dead: number("dead")?,
        oldest: row.try_get::<Option<i64>>("", "oldest")?.map(Timestamp),
    })
}

/// Returns how many jobs are queued for this user, counting at most `most`.
pub async fn waiting_for(connection: &impl ConnectionTrait, user_id: &UserId, most: u64) -> Result<u64, Error> {
    const WAITING: &str = "SELECT count(*) AS waiting
        FROM (SELECT 1 FROM jobs WHERE state = 'queued' AND user_id = $1 LIMIT $2) AS few";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let row = query_one(connection, WAITING, vec![user_id.as_str().into(), most.into()]).await?;
    Ok(u64::try_from(row.try_get::<i64>("", "waiting")?).unwrap_or(0))
}

fn row_of(job: &NewJob<'_>, now: Timestamp) -> Result<ActiveModel, Error> {
    Ok(ActiveModel {
        image_id: Set(job.image_id.0),
        generation: Set(job.generation),
        payload: Set(serde_json::to_string(job.payload).map_err(|error| Error::Corrupt(error.to_string()))?),
        state: Set(JobState::Queued.as_str().into()),
        attempt: Set(0),
        crashes: Set(0),
        decoding: Set(0),
        run_at: Set(now.0),
        request_id: Set(job.request_id.map(str::to_owned)),
        user_id: Set(Some(job.user_id.as_str().to_owned())),
        host: Set(job.host.clone()),
        created_at: Set(now.0),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    })
}

pub(super) fn ended(state: JobState, error: Option<(ErrorCode, &str)>, now: Timestamp) -> ActiveModel {
    let (code, message) = error.map(|(code, message)| (code.as_str().to_owned(), message.to_owned())).unzip();
    ActiveModel {
        state: Set(state.as_str().into()),
        lease_token: Set(None),
        lease_until: Set(None),
        working_on: Set(None),
        error_code: Set(code),
        error_message: Set(message),
        updated_at: Set(now.0),
        ..ActiveModel::default()
    }
}

/// Returns the new end of a lease that is extended until `until`.
/// The end always grows, even if the clock went back, because observers detect a heartbeat by its change.
fn grown(until: Timestamp) -> SimpleExpr {
    let end = || Expr::col(Column::LeaseUntil);
    Expr::case(end().gte(until.0), end().add(1_i64)).finally(until.0).into()
}

/// Updates a running job only if the caller holds its lease (the fence).
async fn update_held(connection: &impl ConnectionTrait, job: &Job, update: UpdateMany<Entity>) -> Result<bool, Error> {
    let changed = update
        .filter(Column::Id.eq(job.id.0))
        .filter(Column::State.eq(JobState::Running.as_str()))
        .filter(Column::LeaseToken.eq(job.lease_token.as_str()))
        .exec(connection)
        .await?;
    Ok(changed.rows_affected == 1)
}

pub(super) fn job_of(row: &QueryResult) -> Result<Job, Error> {
    let payload: String = row.try_get("", "payload")?;
    Ok(Job {
        id: JobId(row.try_get("", "id")?),
        image_id: ImageId(row.try_get("", "image_id")?),
        // An unknown payload of a newer version must not block the jobs behind it.
        payload: serde_json::from_str(&payload).unwrap_or(JobPayload::Unknown),
        attempt: row.try_get("", "attempt")?,
        lost: 0,
        lease_token: row.try_get("", "lease_token")?,
        request_id: row.try_get("", "request_id")?,
        created_at: Timestamp(row.try_get("", "created_at")?),
        user_id: row.try_get::<Option<String>>("", "user_id")?.map(UserId::stored),
        host: row.try_get("", "host")?,
    })
}
