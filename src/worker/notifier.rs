//! Event notifier: notifies other processes on PostgreSQL of new events.
//!
//! It batches notifications and runs outside the writing transactions, because NOTIFY serializes commits.

use std::time::Duration;

use crate::{catalog::Catalog, stop::Stop};

/// Pause after a failure; listeners also poll.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends notifications until `stop`.
pub async fn notify_events(catalog: Catalog, mut stop: Stop) {
    loop {
        let outcome = tokio::select! {
            () = stop.wanted() => return,
            outcome = catalog.notify_listeners() => outcome,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "cannot notify other processes of events; retrying");
            tokio::select! {
                () = stop.wanted() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
