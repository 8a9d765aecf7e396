//! Event notifier: notifies other processes on PostgreSQL of new events.
//!
//! It batches notifications and runs outside the writing transactions, because NOTIFY serializes commits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;

/// Pause after a failure; listeners also poll.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends notifications until `stop`.
pub async fn notify_events(catalog: Catalog, stop: CancellationToken) {
    loop {
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = catalog.notify_listeners() => outcome,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "cannot notify other processes of events; retrying");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
