//! Deletes orphaned blobs periodically, in one process of the installation at a time.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Error},
    maintenance::Collected,
};

/// Interval of checking whether a run is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Deletes orphaned blobs every `every` until `stop`; never if `every` is zero.
pub async fn collect(catalog: Catalog, every: Duration, stop: CancellationToken) {
    if every.is_zero() {
        return;
    }
    let mut pulse = tokio::time::interval(every.min(CHECK_INTERVAL));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        // An interrupted run keeps its deletions; its lock expires with its lease.
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = catalog.collect_if_due(every) => outcome,
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(collected)) => {
                failing = false;
                report(collected);
            }
            Err(error) => {
                metrics::counter!("pm_gc_runs_total", "outcome" => "failed").increment(1);
                if matches!(error, Error::Copying) {
                    tracing::info!("garbage collection postponed: a backup or a restore is running");
                } else if !failing {
                    tracing::warn!(error = &error as &dyn std::error::Error, "garbage collection failed; retrying");
                    failing = true;
                }
            }
        }
    }
}

fn report(collected: Collected) {
    let Collected { removed, bytes, young, unfinished } = collected;
    metrics::counter!("pm_gc_runs_total", "outcome" => "done").increment(1);
    metrics::counter!("pm_gc_removed_blobs_total").increment(removed);
    metrics::counter!("pm_gc_removed_bytes_total").increment(bytes);
    tracing::info!(
        removed,
        bytes,
        young,
        unfinished,
        "gc: removed {removed} orphaned blobs ({bytes} bytes), {unfinished} unfinished files; kept {young} new orphans"
    );
}
