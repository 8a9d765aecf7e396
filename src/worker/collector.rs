//! Removes orphaned blobs once in each period, while no other process of the installation does so.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error},
    maintenance::Collected,
    stop::Stop,
};

/// Whether a run is due is asked this often.
const LOOK: Duration = Duration::from_secs(60);

/// Removes orphaned blobs each `every` until `stop`; never if that is zero.
pub async fn collect(catalog: Catalog, every: Duration, mut stop: Stop) {
    if every.is_zero() {
        return;
    }
    let mut pulse = tokio::time::interval(every.min(LOOK));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.wanted() => return,
            _ = pulse.tick() => {}
        }
        // A run that is cut off here has removed what it has removed; the turn ends with its lease.
        let outcome = tokio::select! {
            () = stop.wanted() => return,
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
                    tracing::info!("a backup or a restore is running; orphaned blobs are removed later");
                } else if !failing {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "orphaned blobs cannot be removed; it is tried again"
                    );
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
        "gc: removed {removed} orphaned blobs of {bytes} bytes and {unfinished} unfinished files; kept {young} young orphans"
    );
}
