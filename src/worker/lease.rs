//! Signs of life: a job's lease is lengthened as long as its worker lives.

use std::time::Duration;

use crate::{catalog::Catalog, domain::Job};

/// Three signs fit into a lease, so that one may get lost.
const EVERY: Duration = Duration::from_secs(5);

/// Lengthens the lease of `job` again and again; returns only when the job was given to another worker.
pub(super) async fn keep(catalog: &Catalog, job: &Job) {
    let mut pulse = tokio::time::interval(EVERY);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pulse.tick().await;
    loop {
        pulse.tick().await;
        match catalog.extend_lease(job).await {
            Ok(true) => {}
            Ok(false) => return,
            // The result is fenced: going on costs at most the work.
            Err(error) => tracing::warn!(job.id = %job.id, %error, "a lease could not be lengthened"),
        }
    }
}
