//! Event notifier: notifies other processes on PostgreSQL of new events.
//!
//! It batches notifications and runs outside the writing transactions, because NOTIFY serializes commits.

use std::time::Duration;

use crate::{catalog::Catalog, stop::Stop};

/// Pause after a failure; listeners also poll.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends notifications until `stop`.
pub async fn herald(catalog: Catalog, mut stop: Stop) {
    loop {
        let told = tokio::select! {
            () = stop.wanted() => return,
            told = catalog.tell_listeners() => told,
        };
        if let Err(error) = told {
            tracing::debug!(%error, "cannot notify other processes of events; retrying");
            tokio::select! {
                () = stop.wanted() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}
