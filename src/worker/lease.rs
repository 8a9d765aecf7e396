//! Extends a job's lease while its worker lives.

use std::time::Duration;

use crate::{catalog::Catalog, domain::Job};

/// Interval of extensions: three fit into a lease, so one may fail.
const EXTEND_INTERVAL: Duration = Duration::from_secs(5);
/// Interval after a failure: shorter, because the lease is running out.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Extends the lease of `job` periodically; returns only when another worker has the job.
pub(super) async fn keep(catalog: &Catalog, job: &Job) {
    let mut pause = EXTEND_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        pause = match catalog.extend_lease(job).await {
            Ok(true) => EXTEND_INTERVAL,
            Ok(false) => return,
            Err(error) => {
                // The result is fenced by the lease token, so continuing wastes at most this work.
                tracing::warn!(job.id = %job.id, %error, "cannot extend a job's lease; retrying");
                RETRY_INTERVAL
            }
        }
    }
}
