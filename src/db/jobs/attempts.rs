//! Rows of failed attempts. The transaction that ends an attempt writes its row; deleting a job deletes its attempts.

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, Statement,
};

use crate::{
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Error,
        entity::job_attempt::{ActiveModel, Column, Entity, Model},
    },
    domain::{Attempt, AttemptOutcome, JobId},
};

/// Attempts kept per job; older ones are deleted.
pub const MAX_STORED_ATTEMPTS: i64 = 50;

/// Message of a lost lease, which is stored as a worker crash: the schema and older versions know no other outcome.
const LEASE_LOST: &str = "lease_lost";

/// Records how an attempt at a job ended, and deletes attempts beyond [`MAX_STORED_ATTEMPTS`].
///
/// # Errors
/// [`Error::MissingReference`] if the job does not exist.
pub async fn record(connection: &impl ConnectionTrait, job: JobId, attempt: &Attempt) -> Result<(), Error> {
    const DELETE: &str = "DELETE FROM job_attempts WHERE job_id = $1
         AND id <= (SELECT id FROM job_attempts WHERE job_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)";
    let (code, message) =
        attempt.error.as_ref().map(|(code, message)| (code.as_str().to_owned(), message.clone())).unzip();
    let (outcome, message) = match attempt.outcome {
        AttemptOutcome::LeaseLost => (AttemptOutcome::WorkerDied, Some(LEASE_LOST.to_owned())),
        outcome => (outcome, message),
    };
    let row = ActiveModel {
        id: NotSet,
        job_id: Set(job.0),
        attempt: Set(attempt.number),
        outcome: Set(outcome.as_str().to_owned()),
        error_code: Set(code),
        error_message: Set(message),
        ended_at: Set(attempt.ended_at.0),
    };
    Entity::insert(row).exec_without_returning(connection).await?;
    let values = [job.0.into(), MAX_STORED_ATTEMPTS.into()];
    connection.execute_raw(Statement::from_sql_and_values(connection.get_database_backend(), DELETE, values)).await?;
    Ok(())
}

/// Returns a job's failed attempts in order, at most [`MAX_STORED_ATTEMPTS`].
pub async fn of_job(connection: &impl ConnectionTrait, job: JobId) -> Result<Vec<Attempt>, Error> {
    let rows = Entity::find().filter(Column::JobId.eq(job.0)).order_by_asc(Column::Id).all(connection).await?;
    rows.into_iter().map(attempt_of).collect()
}

fn attempt_of(row: Model) -> Result<Attempt, Error> {
    let outcome = AttemptOutcome::parse(&row.outcome)
        .ok_or_else(|| Error::Corrupt(format!("an attempt at job {} ended as {}", row.job_id, row.outcome)))?;
    if outcome == AttemptOutcome::WorkerDied && row.error_message.as_deref() == Some(LEASE_LOST) {
        let outcome = AttemptOutcome::LeaseLost;
        return Ok(Attempt { number: row.attempt, outcome, error: None, ended_at: Timestamp(row.ended_at) });
    }
    let error = row
        .error_code
        .map(|code| (ErrorCode::parse(&code).unwrap_or(ErrorCode::Internal), row.error_message.unwrap_or_default()));
    Ok(Attempt { number: row.attempt, outcome, error, ended_at: Timestamp(row.ended_at) })
}
