//! Lists the leases on jobs and deliveries, and takes expired leases from their holders.
//!
//! A lease is recovered only if it is unchanged: a heartbeat in between keeps it.

use sea_orm::{ConnectionTrait, QueryResult};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        statement::{query, skip_locked},
    },
    domain::{ImageId, JobId, Lapsed, Lease},
};

/// Leases watched at a time, per table.
const MAX_WATCHED: i64 = 10_000;

/// A job whose expired lease was recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredJob {
    /// The job's id.
    pub id: JobId,
    /// The job's image.
    pub image_id: ImageId,
    /// The number of the attempt that lost the lease.
    pub attempt: i32,
    /// Workers and decoders that crashed while decoding the image.
    pub crashes: i32,
}

/// Counts of a job's lost leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Leases lost for any reason.
    pub lost: i32,
    /// Lost leases whose holder is known to have ended.
    pub ended: i32,
}

/// Returns the leases on jobs.
pub async fn of_jobs(connection: &impl ConnectionTrait) -> Result<Vec<Lease>, Error> {
    list(connection, "jobs").await
}

/// Returns the leases on deliveries.
pub async fn of_deliveries(connection: &impl ConnectionTrait) -> Result<Vec<Lease>, Error> {
    list(connection, "webhook_deliveries").await
}

/// Takes a job's lease and requeues the job with its old `run_at`.
/// Returns `None` if the lease has changed. The job counts a crash if the holder is known to have ended while it
/// decoded the image in its own process. From the second crash on, such jobs are due at different times, so that a
/// harmless image is not decoded beside the faulty one again.
pub async fn take_job(
    connection: &impl ConnectionTrait,
    lapsed: &Lapsed,
    now: Timestamp,
) -> Result<Option<RecoveredJob>, Error> {
    let sql = format!(
        "UPDATE jobs SET state = 'queued', crashes = crashes + decoding * $1,
            run_at = CASE WHEN crashes + decoding * $1 >= 2 THEN $2 + (1 + id % 10) * 3000000
                WHEN run_at > $2 THEN $2 ELSE run_at END,
            decoding = 0, working_on = NULL, dispatched_at = NULL, lease_token = NULL, lease_until = NULL, updated_at = $2
         WHERE id = (SELECT id FROM jobs
            WHERE id = $3 AND state = 'running' AND lease_token = $4 AND lease_until = $5{})
         RETURNING id, image_id, attempt, crashes",
        skip_locked(connection)
    );
    let lease = &lapsed.lease;
    let values = vec![
        i32::from(lapsed.holder_ended).into(),
        now.0.into(),
        lease.id.into(),
        lease.token.as_str().into(),
        lease.until.0.into(),
    ];
    let rows = query(connection, &sql, values).await?;
    let recovered = |row: &QueryResult| {
        Ok(RecoveredJob {
            id: JobId(row.try_get("", "id")?),
            image_id: ImageId(row.try_get("", "image_id")?),
            attempt: row.try_get("", "attempt")?,
            crashes: row.try_get("", "crashes")?,
        })
    };
    rows.first().map(recovered).transpose()
}

/// Takes a delivery's lease and requeues the delivery; `false` if the lease has changed.
/// The attempt does not count.
pub async fn take_delivery(connection: &impl ConnectionTrait, lease: &Lease, now: Timestamp) -> Result<bool, Error> {
    let sql = format!(
        "UPDATE webhook_deliveries SET state = 'queued', run_at = $1, attempt = attempt - 1, lease_token = NULL,
            lease_until = NULL, updated_at = $1
         WHERE id = (SELECT id FROM webhook_deliveries
            WHERE id = $2 AND state = 'running' AND lease_token = $3 AND lease_until = $4{})
         RETURNING id",
        skip_locked(connection)
    );
    let values = vec![now.0.into(), lease.id.into(), lease.token.as_str().into(), lease.until.0.into()];
    Ok(!query(connection, &sql, values).await?.is_empty())
}

/// Counts a lost lease of a job and returns the job's counts.
pub async fn count_loss(connection: &impl ConnectionTrait, id: JobId, holder_ended: bool) -> Result<Losses, Error> {
    const COUNT: &str = "INSERT INTO lost_claims (job_id, lost, ended) VALUES ($1, 1, $2)
        ON CONFLICT (job_id) DO UPDATE SET lost = lost_claims.lost + 1, ended = lost_claims.ended + excluded.ended
        RETURNING lost, ended";
    let rows = query(connection, COUNT, vec![id.0.into(), i32::from(holder_ended).into()]).await?;
    losses_of(&rows)
}

/// Returns the counts of a job's lost leases.
pub async fn losses(connection: &impl ConnectionTrait, id: JobId) -> Result<Losses, Error> {
    const FIND: &str = "SELECT lost, ended FROM lost_claims WHERE job_id = $1";
    losses_of(&query(connection, FIND, vec![id.0.into()]).await?)
}

/// Deletes the lost-lease counts of jobs that start again.
pub async fn delete_losses(connection: &impl ConnectionTrait, ids: &[JobId]) -> Result<(), Error> {
    const DELETE: &str = "DELETE FROM lost_claims WHERE job_id = $1 RETURNING job_id";
    for id in ids {
        query(connection, DELETE, vec![id.0.into()]).await?;
    }
    Ok(())
}

/// Postpones a queued job until `run_at`.
pub async fn postpone(connection: &impl ConnectionTrait, id: JobId, run_at: Timestamp) -> Result<(), Error> {
    const POSTPONE: &str = "UPDATE jobs SET run_at = $1 WHERE id = $2 AND state = 'queued' RETURNING id";
    query(connection, POSTPONE, vec![run_at.0.into(), id.0.into()]).await?;
    Ok(())
}

async fn list(connection: &impl ConnectionTrait, table: &str) -> Result<Vec<Lease>, Error> {
    let sql = format!(
        "SELECT id, coalesce(lease_token, '') AS token, coalesce(lease_until, 0) AS until
         FROM {table} WHERE state = 'running' LIMIT $1"
    );
    let rows = query(connection, &sql, vec![MAX_WATCHED.into()]).await?;
    let lease = |row: &QueryResult| {
        Ok(Lease {
            id: row.try_get("", "id")?,
            token: row.try_get("", "token")?,
            until: Timestamp(row.try_get("", "until")?),
        })
    };
    rows.iter().map(lease).collect()
}

fn losses_of(rows: &[QueryResult]) -> Result<Losses, Error> {
    let losses = |row: &QueryResult| Ok(Losses { lost: row.try_get("", "lost")?, ended: row.try_get("", "ended")? });
    rows.first().map_or(Ok(Losses::default()), losses)
}
