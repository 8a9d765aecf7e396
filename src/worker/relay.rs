//! The relay: hands due jobs from the queue of record to the broker. Any number of processes may run one.

use std::time::Duration;

use crate::{catalog::Catalog, queue::Queue, stop::Stop};

/// Jobs whose time comes, and those of processes that cannot wake this one, are seen within this.
const LOOK: Duration = Duration::from_millis(500);
/// After a failure it waits longer and longer, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A hand-over that takes longer hangs on a connection that will never answer.
const LONGEST_HAND_OVER: Duration = Duration::from_secs(15);

/// Relays until `stop`; returns at once if the queue needs no relay.
pub async fn relay(catalog: Catalog, queue: Queue, mut stop: Stop) {
    if !queue.needs_relay() {
        return;
    }
    let mut pause = Duration::ZERO;
    let mut more = false;
    loop {
        if !more {
            tokio::select! {
                () = stop.wanted() => return,
                () = queue.woken(LOOK) => {}
            }
        }
        // A hand-over that is under way ends before the stop does: what it cut off would be sent again much later.
        let handed_over = tokio::time::timeout(LONGEST_HAND_OVER, catalog.dispatch_due()).await;
        more = matches!(handed_over, Ok(Ok(jobs)) if jobs > 0) && !stop.is_wanted();
        match handed_over {
            Ok(Ok(_)) => {
                pause = Duration::ZERO;
                continue;
            }
            Ok(Err(error)) if pause.is_zero() => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "jobs cannot be handed to the broker for now");
            }
            Ok(Err(_)) => {}
            Err(_) => tracing::warn!("handing jobs to the broker took too long; it is tried again"),
        }
        pause = (pause * 2).clamp(Duration::from_millis(200), LONGEST_PAUSE);
        tokio::select! {
            () = stop.wanted() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
