//! Rows of the queue of record: every claim and every end of a job is one fenced statement.

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

/// How long a lease lasts unless its holder lengthens it, by the clock of whoever looks on.
pub const LEASE: Duration = Duration::from_secs(15);

/// A job to be queued.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// The picture it is about.
    pub image_id: ImageId,
    /// The picture's run.
    pub generation: i32,
    /// What is asked for.
    pub payload: &'a JobPayload,
    /// The request that caused it.
    pub request_id: Option<&'a str>,
    /// The image's user.
    pub user_id: UserId,
    /// The host from which the image is downloaded; none for an uploaded one.
    pub host: Option<String>,
}

/// Queues jobs that are due now.
///
/// # Errors
/// If the database does not answer.
pub async fn insert_all(connection: &impl ConnectionTrait, jobs: &[NewJob<'_>], now: Timestamp) -> Result<(), Error> {
    for some in parts(jobs) {
        let rows = some.iter().map(|job| row_of(job, now)).collect::<Result<Vec<_>, _>>()?;
        Entity::insert_many(rows).exec_without_returning(connection).await?;
    }
    Ok(())
}

/// Lengthens a lease; `false` if it is no longer the caller's.
///
/// # Errors
/// If the database does not answer.
pub async fn extend_lease(connection: &impl ConnectionTrait, job: &Job, until: Timestamp) -> Result<bool, Error> {
    let held = Entity::update_many().col_expr(Column::LeaseUntil, grown(until));
    update_held(connection, job, held).await
}

/// Notes that the picture is being decoded from now on, and what of, and lengthens the lease; `false` if it is no longer
/// the caller's. With `blamable` the picture is to blame should the worker die.
///
/// # Errors
/// [`Error::Duplicate`] if another job is at the same content; if the database does not answer.
pub async fn begin_decoding(
    connection: &impl ConnectionTrait,
    job: &Job,
    working_on: &str,
    blamable: bool,
    until: Timestamp,
) -> Result<bool, Error> {
    let row = ActiveModel {
        decoding: Set(i32::from(blamable)),
        working_on: Set(Some(working_on.to_owned())),
        ..ActiveModel::default()
    };
    update_held(connection, job, Entity::update_many().set(row).col_expr(Column::LeaseUntil, grown(until))).await
}

/// Whether a job other than `job` is at this content.
///
/// # Errors
/// If the database does not answer.
pub async fn is_worked_on(connection: &impl ConnectionTrait, working_on: &str, job: &Job) -> Result<bool, Error> {
    let at_it = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::WorkingOn.eq(working_on))
        .filter(Column::Id.ne(job.id.0))
        .into_tuple::<i64>();
    Ok(at_it.one(connection).await?.is_some())
}

/// Ends a job whose work is stored; `false` if the lease is no longer the caller's.
///
/// # Errors
/// If the database does not answer.
pub async fn finish(connection: &impl ConnectionTrait, job: &Job, now: Timestamp) -> Result<bool, Error> {
    update_held(connection, job, Entity::update_many().set(ended(JobState::Done, None, now))).await
}

/// Ends a job that failed for good; `false` if the lease is no longer the caller's.
///
/// # Errors
/// If the database does not answer.
pub async fn bury(
    connection: &impl ConnectionTrait,
    job: &Job,
    error: (ErrorCode, &str),
    now: Timestamp,
) -> Result<bool, Error> {
    update_held(connection, job, Entity::update_many().set(ended(JobState::Dead, Some(error), now))).await
}

/// Queues a job again for `run_at` after a failed attempt; `false` if the lease is no longer the caller's.
///
/// # Errors
/// If the database does not answer.
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

/// Gives a job back unfinished, as if it had never been claimed; `false` if the lease is no longer the caller's.
///
/// # Errors
/// If the database does not answer.
pub async fn release(connection: &impl ConnectionTrait, job: &Job, now: Timestamp) -> Result<bool, Error> {
    let row =
        ActiveModel { attempt: Set(job.attempt - 1), dispatched_at: Set(None), ..ended(JobState::Queued, None, now) };
    // At its old place, unless the clock has gone back since.
    let place = Expr::case(Expr::col(Column::RunAt).gt(now.0), now.0).finally(Expr::col(Column::RunAt));
    update_held(connection, job, Entity::update_many().set(row).col_expr(Column::RunAt, place.into())).await
}

/// How full the queue is; reads only the index of the living and the dead, and of that no more than 100,001 a state.
///
/// # Errors
/// If the database does not answer.
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

/// How many jobs wait for this user; no more than `most` are counted.
///
/// # Errors
/// If the database does not answer.
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

/// The end of a lease that is lengthened until `until`. It grows each time, whatever the clock says, since others see a
/// heartbeat by its change.
fn grown(until: Timestamp) -> SimpleExpr {
    let end = || Expr::col(Column::LeaseUntil);
    Expr::case(end().gte(until.0), end().add(1_i64)).finally(until.0).into()
}

/// The fence: only the holder of the lease changes a running job.
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
        // What a newer version queued must not stand in the way of everything behind it.
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
