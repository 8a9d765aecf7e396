//! The sweeper: takes jobs from dead workers, sends lost messages again, tells the cache what dead processes did not,
//! removes what was done long ago, and sets the queue's gauges. Any number of processes may run one.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error},
    stop::Stop,
};

/// A dead worker's job is seen this long after its lease ran out, at most.
const EVERY: Duration = Duration::from_secs(1);
/// All else is looked after each second time.
const UPKEEP_EACH: u64 = 2;

/// A round that takes longer hangs on a connection that will never answer.
const LONGEST_ROUND: Duration = Duration::from_secs(30);

/// Sweeps until `stop`.
pub async fn sweep(catalog: Catalog, mut stop: Stop) {
    let mut pulse = tokio::time::interval(EVERY);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut failing, mut rounds) = (false, 0_u64);
    loop {
        tokio::select! {
            () = stop.wanted() => return,
            _ = pulse.tick() => {}
        }
        let outcome = tokio::select! {
            () = stop.wanted() => return,
            outcome = tokio::time::timeout(LONGEST_ROUND, round(&catalog, rounds.is_multiple_of(UPKEEP_EACH))) => outcome,
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
async fn round(catalog: &Catalog, with_upkeep: bool) -> Result<(), Error> {
    let recovered = catalog.recover_expired().await.inspect(|recovered| {
        if *recovered > 0 {
            tracing::warn!(recovered, "took {recovered} jobs from workers that gave no sign of life");
            metrics::counter!("pm_jobs_recovered_total").increment(*recovered as u64);
        }
    });
    if !with_upkeep {
        return recovered.map(|_| ());
    }
    let named = catalog.follow_installation().await;
    let told = catalog.keep_cache_told().await;
    let measured = catalog.measure_queue().await;
    let again = catalog.recover_messages().await.inspect(|again| {
        if *again > 0 {
            tracing::warn!(again, "the broker lost messages; {again} jobs are sent again");
        }
    });
    let forgotten = catalog.forget_finished().await.and(catalog.forget_events().await);
    let keys = catalog.forget_keys().await.and(catalog.forget_deliveries().await);
    let deliveries = catalog.recover_deliveries().await;
    recovered.and(named).and(told).and(measured).and(again).and(forgotten).and(keys).and(deliveries).map(|_| ())
}
