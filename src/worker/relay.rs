//! The relay: publishes due jobs from the database to the broker. Any number of processes may run one.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{catalog::Catalog, queue::Queue};

/// Poll interval: finds jobs that become due, and jobs of processes that cannot wake this one.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Time limit of one publication; longer ones hang on a dead connection.
const DISPATCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Publishes jobs until `stop`; returns at once if the queue needs no relay.
pub async fn relay(catalog: Catalog, queue: Queue, stop: CancellationToken) {
    if !queue.needs_relay() {
        return;
    }
    let mut pause = Duration::ZERO;
    let mut more = false;
    loop {
        if !more {
            tokio::select! {
                () = stop.cancelled() => return,
                () = queue.woken(POLL_INTERVAL) => {}
            }
        }
        // A running publication ends before the stop: jobs of an aborted one would be published much later.
        let handed_over = tokio::time::timeout(DISPATCH_TIMEOUT, catalog.dispatch_due()).await;
        more = matches!(handed_over, Ok(Ok(jobs)) if jobs > 0) && !stop.is_cancelled();
        match handed_over {
            Ok(Ok(_)) => {
                pause = Duration::ZERO;
                continue;
            }
            Ok(Err(error)) if pause.is_zero() => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot publish jobs to the broker; retrying");
            }
            Ok(Err(_)) => {}
            Err(_) => tracing::warn!("publishing jobs to the broker timed out; retrying"),
        }
        pause = (pause * 2).clamp(Duration::from_millis(200), MAX_PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
