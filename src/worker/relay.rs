//! The relay: hands due jobs from the queue of record to the broker. Any number of processes may run one.

use std::time::Duration;

use crate::{catalog::Catalog, queue::Queue, stop::Stop};

/// Jobs whose time comes, and those of processes that cannot wake this one, are seen within this.
const LOOK: Duration = Duration::from_millis(500);
/// After a failure it waits longer and longer, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Relays until `stop`; returns at once if the queue needs no relay.
pub async fn relay(catalog: Catalog, queue: Queue, mut stop: Stop) {
    if !queue.needs_relay() {
        return;
    }
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.wanted() => return,
            () = queue.woken(LOOK) => {}
        }
        match catalog.dispatch_due().await {
            Ok(_) => pause = Duration::ZERO,
            Err(error) => {
                if pause.is_zero() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "jobs cannot be handed to the broker for now"
                    );
                }
                pause = (pause * 2).clamp(Duration::from_millis(200), LONGEST_PAUSE);
                tokio::select! {
                    () = stop.wanted() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}
