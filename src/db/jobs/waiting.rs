//! Corrects waiting rows whose time is too far ahead because the clock went back.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Value};

use crate::{
    clock::Timestamp,
    db::{
        Error,
        statement::{query, skip_locked},
    },
};

/// Maximum delay of a job: the longest `Retry-After` that pm accepts from an origin.
pub const MAX_JOB_DELAY: Duration = Duration::from_secs(3_600);
/// Maximum delay of a delivery: one day plus jitter.
pub const MAX_DELIVERY_DELAY: Duration = Duration::from_secs(30 * 3_600);
/// Upper limit for the pause of a webhook.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Rows written up to this far in the future count as written now.
const TOLERANCE: Duration = Duration::from_secs(1);

const TABLES: [(&str, Duration); 2] = [("jobs", MAX_JOB_DELAY), ("webhook_deliveries", MAX_DELIVERY_DELAY)];

/// `$1` is now, `$2` the maximum delay in microseconds, `$3` now plus the tolerance.
const WRONG: &str = "state = 'queued' AND run_at > $1 AND (updated_at > $3 OR run_at > $1 + $2)";

/// `$1` is the latest end of a pause that begins now, `$2` now plus the tolerance.
const WRONG_WEBHOOK: &str = "paused_until > $1 OR failing_since > $2";

/// Returns whether [`correct`] would change a row.
pub async fn any_wrong(connection: &impl ConnectionTrait, now: Timestamp) -> Result<bool, Error> {
    for (table, longest) in TABLES {
        let sql = format!("SELECT 1 AS found FROM {table} WHERE {WRONG} LIMIT 1");
        if !query(connection, &sql, values_of(now, longest)).await?.is_empty() {
            return Ok(true);
        }
    }
    let sql = format!("SELECT 1 AS found FROM webhooks WHERE {WRONG_WEBHOOK} LIMIT 1");
    let values = vec![now.plus(MAX_PAUSE).0.into(), now.plus(TOLERANCE).0.into()];
    Ok(!query(connection, &sql, values).await?.is_empty())
}

/// Corrects up to `limit` rows with wrong times and returns their number.
/// A row is wrong if it was written in the future, which means that the clock went back, or if it waits longer than the
/// maximum delay. It then waits as long as it had to when it was written. Webhooks that are paused or failing in the
/// future are corrected as well.
pub async fn correct(connection: &impl ConnectionTrait, now: Timestamp, limit: i64) -> Result<usize, Error> {
    let mut corrected = 0;
    for (table, longest) in TABLES {
        let sql = format!(
            "UPDATE {table} SET updated_at = $1,
                run_at = CASE WHEN run_at - updated_at BETWEEN 0 AND $2 THEN $1 + run_at - updated_at ELSE $1 END
             WHERE id IN (SELECT id FROM {table} WHERE {WRONG} LIMIT $4{})
             RETURNING id",
            skip_locked(connection)
        );
        let values = values_of(now, longest).into_iter().chain([limit.into()]).collect();
        corrected += query(connection, &sql, values).await?.len();
    }
    let sql = format!(
        "UPDATE webhooks SET paused_until = CASE WHEN paused_until > $1 THEN $3 ELSE paused_until END,
            failing_since = CASE WHEN failing_since > $2 THEN $3 ELSE failing_since END
         WHERE {WRONG_WEBHOOK} RETURNING id"
    );
    let values = vec![now.plus(MAX_PAUSE).0.into(), now.plus(TOLERANCE).0.into(), now.0.into()];
    Ok(corrected + query(connection, &sql, values).await?.len())
}

fn values_of(now: Timestamp, longest: Duration) -> Vec<Value> {
    let longest = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
    vec![now.0.into(), longest.into(), now.plus(TOLERANCE).0.into()]
}
