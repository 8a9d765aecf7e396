//! The sweeper: watches over leases, sends lost messages again, tells the cache what dead processes did not, removes what was
//! done long ago, and sets the queue's gauges. Any number of processes may run one.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error},
    stop::Stop,
};

/// Leases are looked at this often. Nothing else may hold this up: what is not seen in time is taken late.
const LOOK: Duration = Duration::from_secs(1);
/// A look that takes longer hangs on a connection that will never answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// All else is looked after this often.
const UPKEEP: Duration = Duration::from_secs(2);
/// Waiting times are checked in each so many rounds of upkeep.
const CHECK_WAITING_EACH: u64 = 5;
/// Idempotency keys are counted in each so many rounds of upkeep: every half an hour.
const COUNT_KEYS_EACH: u64 = 900;
/// A round that takes longer hangs on a connection that will never answer.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// Sweeps until `stop`.
pub async fn sweep(catalog: Catalog, stop: Stop) {
    tokio::join!(watch_leases(&catalog, stop.clone()), keep_up(&catalog, stop));
}

async fn watch_leases(catalog: &Catalog, mut stop: Stop) {
    let mut pulse = tokio::time::interval(LOOK);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.wanted() => return,
            _ = pulse.tick() => {}
        }
        let looked = tokio::select! {
            () = stop.wanted() => return,
            looked = tokio::time::timeout(LOOK_TIMEOUT, catalog.watch_leases()) => looked,
        };
        match looked {
            Ok(Ok(taken)) => {
                failing = false;
                if taken > 0 {
                    tracing::warn!(taken, "took {taken} jobs from workers that ended or gave no sign of life");
                    metrics::counter!("pm_jobs_recovered_total").increment(taken as u64);
                }
            }
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(error = &error as &dyn std::error::Error, "leases cannot be watched for now");
                }
                failing = true;
            }
            Err(_) => catalog.forget_leases(),
        }
    }
}

async fn keep_up(catalog: &Catalog, mut stop: Stop) {
    let mut pulse = tokio::time::interval(UPKEEP);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut failing, mut rounds) = (false, 0_u64);
    loop {
        tokio::select! {
            () = stop.wanted() => return,
            _ = pulse.tick() => {}
        }
        let outcome = tokio::select! {
            () = stop.wanted() => return,
            outcome = tokio::time::timeout(LONGEST_ROUND, round(catalog, rounds)) => outcome,
        };
        rounds += 1;
        match outcome {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(error = &error as &dyn std::error::Error, "upkeep failed; it is tried again");
                }
                failing = true;
            }
            Err(_) => tracing::warn!("upkeep took too long; it is tried again"),
        }
    }
}

/// One thing that fails does not keep the others from being done; the first error is answered.
async fn round(catalog: &Catalog, rounds: u64) -> Result<(), Error> {
    let named = catalog.follow_installation().await;
    let corrected = if rounds.is_multiple_of(CHECK_WAITING_EACH) { correct_waiting(catalog).await } else { Ok(()) };
    // What the cache could not be told stays owed, for the next round.
    let told = catalog.keep_cache_told().await.map(|_| ());
    let measured = catalog.measure_queue().await;
    let again = catalog.recover_messages().await.inspect(|again| {
        if *again > 0 {
            tracing::warn!(again, "the broker lost messages; {again} jobs are sent again");
        }
    });
    let forgotten = catalog.forget_finished().await.and(catalog.forget_events().await);
    let keys = catalog.forget_keys().await.and(catalog.forget_deliveries().await);
    let trimmed = if rounds.is_multiple_of(COUNT_KEYS_EACH) { trim_keys(catalog).await } else { Ok(()) };
    corrected.and(trimmed).and(named).and(told).and(measured).and(again).and(forgotten).and(keys).map(|_| ())
}

async fn trim_keys(catalog: &Catalog) -> Result<(), Error> {
    let most = Catalog::MAX_KEYS_PER_CALLER;
    let forgotten = catalog.trim_keys(most).await?;
    if forgotten > 0 {
        tracing::warn!(
            forgotten,
            "callers sent more than {most} idempotency keys; the oldest are remembered no longer"
        );
    }
    Ok(())
}

async fn correct_waiting(catalog: &Catalog) -> Result<(), Error> {
    let corrected = catalog.correct_waiting().await?;
    if corrected > 0 {
        tracing::warn!(corrected, "the database's clock went back; {corrected} waiting rows wait no longer for that");
    }
    Ok(())
}
