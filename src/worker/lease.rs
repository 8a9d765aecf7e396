//! Signs of life: a job's lease is lengthened as long as its worker lives.

use std::time::Duration;

use crate::{catalog::Catalog, domain::Job};

/// Three signs fit into a lease, so that one may get lost.
const EVERY: Duration = Duration::from_secs(5);
/// After a failure the next sign follows sooner: others are counting.
const AGAIN: Duration = Duration::from_secs(1);

/// Lengthens the lease of `job` again and again; returns only when the job was given to another worker.
pub(super) async fn keep(catalog: &Catalog, job: &Job) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match catalog.extend_lease(job).await {
            Ok(true) => EVERY,
            Ok(false) => return,
            Err(error) => {
                // The result is fenced: going on costs at most the work.
                tracing::warn!(job.id = %job.id, %error, "a lease could not be lengthened");
                AGAIN
            }
        }
    }
}
