//! Lease for the automatic garbage collection of blobs, and the time of its last run.
//!
//! Both are in the row of the installation.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use crate::{
    clock::Timestamp,
    db::{Error, statement::query},
};

/// Duration of the lease unless it is extended.
pub const LEASE: Duration = Duration::from_secs(60);
/// Pause of all processes after a failed run.
pub const RETRY_PAUSE: Duration = Duration::from_secs(300);

/// Condition: a run is due and no process holds the lease.
/// A time in the future was written before the clock went back and counts as passed.
const DUE: &str = "singleton = 1 AND (gc_ended_at <= $1 OR gc_ended_at > $2)
    AND (gc_lease_until IS NULL OR gc_lease_until <= $2 OR gc_lease_until > $3)";

/// Stores `now` as the last run if none is stored.
/// So the first run is one period after the first start.
pub async fn begin_counting(connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), Error> {
    const BEGIN: &str =
        "UPDATE installation SET gc_ended_at = $1 WHERE singleton = 1 AND gc_ended_at IS NULL RETURNING gc_ended_at";
    query(connection, BEGIN, vec![now.0.into()]).await?;
    Ok(())
}

/// Returns when the last run ended, if one is stored.
pub async fn last_end(connection: &impl ConnectionTrait) -> Result<Option<Timestamp>, Error> {
    const LAST: &str = "SELECT gc_ended_at FROM installation WHERE singleton = 1";
    let rows = query(connection, LAST, Vec::new()).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(row.try_get::<Option<i64>>("", "gc_ended_at")?.map(Timestamp))
}

/// Returns whether a run is due.
pub async fn is_due(connection: &impl ConnectionTrait, every: Duration, now: Timestamp) -> Result<bool, Error> {
    let sql = format!("SELECT gc_ended_at FROM installation WHERE {DUE}");
    let values = vec![now.minus(every).0.into(), now.0.into(), now.plus(RETRY_PAUSE).0.into()];
    Ok(!query(connection, &sql, values).await?.is_empty())
}

/// Takes the lease under `token` if a run is due and the lease is free.
pub async fn take(
    connection: &impl ConnectionTrait,
    token: &str,
    every: Duration,
    now: Timestamp,
) -> Result<bool, Error> {
    let sql = format!(
        "UPDATE installation SET gc_lease_token = $4, gc_lease_until = $5 WHERE {DUE} RETURNING gc_lease_until"
    );
    let values = vec![
        now.minus(every).0.into(),
        now.0.into(),
        now.plus(RETRY_PAUSE).0.into(),
        token.into(),
        now.plus(LEASE).0.into(),
    ];
    Ok(!query(connection, &sql, values).await?.is_empty())
}

/// Extends the lease; `false` if another process holds it.
pub async fn extend(connection: &impl ConnectionTrait, token: &str, now: Timestamp) -> Result<bool, Error> {
    const EXTEND: &str = "UPDATE installation SET gc_lease_until = $1 WHERE singleton = 1 AND gc_lease_token = $2
        RETURNING gc_lease_until";
    Ok(!query(connection, EXTEND, vec![now.plus(LEASE).0.into(), token.into()]).await?.is_empty())
}

/// Ends the lease. A successful run is stored with the time `now`; after a failed one all processes wait
/// [`RETRY_PAUSE`].
pub async fn end(connection: &impl ConnectionTrait, token: &str, well: bool, now: Timestamp) -> Result<(), Error> {
    const WELL: &str = "UPDATE installation SET gc_ended_at = $1, gc_lease_token = NULL, gc_lease_until = NULL
        WHERE singleton = 1 AND gc_lease_token = $2 RETURNING gc_ended_at";
    const LATER: &str = "UPDATE installation SET gc_lease_token = NULL, gc_lease_until = $1
        WHERE singleton = 1 AND gc_lease_token = $2 RETURNING gc_ended_at";
    let (sql, moment) = if well { (WELL, now) } else { (LATER, now.plus(RETRY_PAUSE)) };
    query(connection, sql, vec![moment.0.into(), token.into()]).await?;
    Ok(())
}
