//! The sweeper: maintains the job queue. Any number of processes may run one.
//!
//! It takes jobs with expired leases, republishes lost messages, flushes cache invalidations that dead processes left,
//! deletes expired rows, and sets the queue's gauges.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Error};

/// Interval of checking leases. Nothing may delay it, or expired leases are found late.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of a lease check; longer checks hang on a dead connection.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of all other maintenance.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(2);
/// Waiting times are checked once in this many rounds.
const CHECK_WAITING_EACH: u64 = 5;
/// Idempotency keys are trimmed once in this many rounds: every half hour.
const COUNT_KEYS_EACH: u64 = 900;
/// Time limit of a round; longer rounds hang on a dead connection.
const MAX_ROUND: Duration = Duration::from_secs(30);

/// Runs until `stop`.
pub async fn sweep(catalog: Catalog, stop: CancellationToken) {
    tokio::join!(watch_leases(&catalog, stop.clone()), keep_up(&catalog, stop));
}

async fn watch_leases(catalog: &Catalog, stop: CancellationToken) {
    let mut pulse = tokio::time::interval(CHECK_INTERVAL);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        let checked = tokio::select! {
            () = stop.cancelled() => return,
            checked = tokio::time::timeout(CHECK_TIMEOUT, catalog.watch_leases()) => checked,
        };
        match checked {
            Ok(Ok(taken)) => {
                failing = false;
                if taken > 0 {
                    tracing::warn!(taken, "took {taken} jobs from workers that stopped extending their leases");
                    metrics::counter!("pm_jobs_recovered_total").increment(taken as u64);
                }
            }
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot check job leases; retrying");
                }
                failing = true;
            }
            Err(_) => catalog.discard_lease_observations(),
        }
    }
}

async fn keep_up(catalog: &Catalog, stop: CancellationToken) {
    let mut pulse = tokio::time::interval(MAINTENANCE_INTERVAL);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut failing, mut rounds) = (false, 0_u64);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pulse.tick() => {}
        }
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = tokio::time::timeout(MAX_ROUND, round(catalog, rounds)) => outcome,
        };
        rounds += 1;
        match outcome {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(error = &error as &dyn std::error::Error, "queue maintenance failed; retrying");
                }
                failing = true;
            }
            Err(_) => tracing::warn!("queue maintenance timed out; retrying"),
        }
    }
}

/// Runs every maintenance task, even if some fail; returns the first error.
async fn round(catalog: &Catalog, rounds: u64) -> Result<(), Error> {
    let named = catalog.follow_installation().await;
    let corrected = if rounds.is_multiple_of(CHECK_WAITING_EACH) { correct_waiting(catalog).await } else { Ok(()) };
    // Invalidations that the cache did not accept stay pending for the next round.
    let flushed = catalog.flush_invalidations().await.map(|_| ());
    let measured = catalog.measure_queue().await;
    let again = catalog.recover_messages().await.inspect(|again| {
        if *again > 0 {
            tracing::warn!(again, "the broker lost messages; republished {again} jobs");
        }
    });
    let deleted = catalog.delete_expired_jobs().await.and(catalog.delete_expired_events().await);
    let keys = catalog.delete_expired_keys().await.and(catalog.delete_expired_deliveries().await);
    let trimmed = if rounds.is_multiple_of(COUNT_KEYS_EACH) { trim_keys(catalog).await } else { Ok(()) };
    corrected.and(trimmed).and(named).and(flushed).and(measured).and(again).and(deleted).and(keys).map(|_| ())
}

async fn trim_keys(catalog: &Catalog) -> Result<(), Error> {
    let most = Catalog::MAX_KEYS_PER_CALLER;
    let forgotten = catalog.trim_keys(most).await?;
    if forgotten > 0 {
        tracing::warn!(forgotten, "clients stored more than {most} idempotency keys; deleted the oldest {forgotten}");
    }
    Ok(())
}

async fn correct_waiting(catalog: &Catalog) -> Result<(), Error> {
    let corrected = catalog.correct_waiting().await?;
    if corrected > 0 {
        tracing::warn!(corrected, "the database's clock went back; corrected the due time of {corrected} rows");
    }
    Ok(())
}
