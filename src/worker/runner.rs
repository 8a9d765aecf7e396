//! The consumer: as many jobs at a time as there are slots, each under its lease, none lost when it stops.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::MissedTickBehavior,
};

use crate::{
    catalog::{Catalog, Claimed, Due, Error, Settlement},
    jobs::{Failure, Handler, Report},
    queue::{Delivery, Next, Queue},
    stop::{self, Stop},
    worker::{
        lease,
        report::{Ending, report},
    },
};

/// Runs jobs; cheap to clone.
#[derive(Clone, Debug)]
pub struct Worker {
    catalog: Catalog,
    queue: Queue,
    handler: Handler,
    slots: usize,
}

/// While one picture is decoded others are downloaded, so that no core waits for an origin.
const SLOTS_PER_DECODER: usize = 4;
/// With a broker, jobs of dead workers are looked for this often: their new messages wait behind all others.
const LOOK_FOR_ORPHANS: Duration = Duration::from_secs(1);
/// Jobs that are running may end within this after the stop; then they are given back.
const GRACE: Duration = Duration::from_secs(10);
/// Giving back takes at most this.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
/// A claim or a result is tried again for as long as the database is away, with pauses up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

impl Worker {
    /// A worker whose handler decodes `decoders` pictures at a time.
    pub const fn new(catalog: Catalog, queue: Queue, handler: Handler, decoders: usize) -> Self {
        let decoders = if decoders == 0 { 1 } else { decoders };
        Self { catalog, queue, handler, slots: decoders * SLOTS_PER_DECODER }
    }

    /// Consumes until `stop`; then running jobs end, or are given back when the grace is over.
    pub async fn run(&self, mut stop: Stop) {
        let prefetch = u16::try_from(self.slots).unwrap_or(u16::MAX);
        let mut consumer = self.queue.consume(prefetch);
        let slots = Arc::new(Semaphore::new(self.slots));
        let (release, released) = stop::channel();
        let mut running = JoinSet::new();
        let mut orphans = tokio::time::interval(LOOK_FOR_ORPHANS);
        orphans.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            reap(&mut running);
            tokio::select! {
                () = stop.wanted() => break,
                _ = orphans.tick(), if self.queue.needs_relay() => {
                    self.claim_due(Due::Orphan, &slots, &mut stop, &released, &mut running).await;
                }
                next = consumer.next() => match next {
                    Next::Due => {
                        self.claim_due(Due::First, &slots, &mut stop, &released, &mut running).await;
                    }
                    Next::Job(delivery) => {
                        let Some(slot) = free_slot(&slots, &mut stop).await else {
                            delivery.requeue().await;
                            break;
                        };
                        let (worker, released, stop) = (self.clone(), released.clone(), stop.clone());
                        running.spawn(async move { worker.deliver(delivery, slot, released, stop).await });
                    }
                },
            }
        }
        tokio::join!(consumer.close(), self.wind_down(running, &release));
    }

    /// Runs every job that is due, and those that become due by it, one after the other; answers how many attempts.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn drain(&self) -> Result<usize, Error> {
        let (_stopper, released) = stop::channel();
        let mut attempts = 0;
        while let Some(claimed) = self.catalog.claim(Due::First).await? {
            self.attempt(claimed, released.clone()).await;
            attempts += 1;
        }
        Ok(attempts)
    }

    /// Claims due jobs until there is none left.
    async fn claim_due(
        &self,
        due: Due,
        slots: &Arc<Semaphore>,
        stop: &mut Stop,
        released: &Stop,
        running: &mut JoinSet<()>,
    ) {
        while let Some(slot) = free_slot(slots, stop).await {
            reap(running);
            match self.catalog.claim(due).await {
                Ok(Some(claimed)) => {
                    let (worker, released) = (self.clone(), released.clone());
                    running.spawn(async move {
                        worker.attempt(claimed, released).await;
                        drop(slot);
                    });
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no job can be claimed for now");
                    return;
                }
            }
        }
    }

    /// The message goes only when the job's row says what became of it: until then a crash brings it back.
    async fn deliver(&self, delivery: Delivery, slot: OwnedSemaphorePermit, released: Stop, stop: Stop) {
        let mut pause = Duration::from_millis(100);
        let claimed = loop {
            match self.catalog.claim(Due::This(delivery.job_id)).await {
                Ok(claimed) => break claimed,
                Err(error) if stop.is_wanted() => {
                    tracing::debug!(%error, "a message goes back unread");
                    return delivery.requeue().await;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a job cannot be claimed for now");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        if let Some(claimed) = claimed {
            self.attempt(claimed, released).await;
        }
        delivery.ack().await;
        drop(slot);
    }

    /// The lease is kept until the result is stored.
    async fn attempt(&self, claimed: Claimed, mut released: Stop) {
        let began = Instant::now();
        let work = async {
            let running = AssertUnwindSafe(self.handler.run(&claimed, &self.catalog)).catch_unwind();
            // The log of panics has the reason. Left to its lease, such a job would begin again for ever.
            let outcome = running.await.unwrap_or_else(|_| Err(Failure::broken_down()));
            self.settle(&claimed, outcome).await
        };
        let ending = tokio::select! {
            ending = work => ending,
            () = lease::keep(&self.catalog, &claimed.job) => Ending::Lost,
            () = released.wanted() => match self.catalog.settle(&claimed, Settlement::Release).await {
                Ok(()) => Ending::Released,
                Err(Error::LeaseLost) => Ending::Lost,
                Err(error) => Ending::Unsettled(error),
            },
        };
        report(&claimed, &ending, began);
    }

    async fn settle(&self, claimed: &Claimed, outcome: Result<Report, Failure>) -> Ending {
        let (settlement, ending) = match outcome {
            Ok(done) => (Settlement::Ready(done.outcome), Ending::Ready { steps: done.steps, reused: done.reused }),
            Err(failure) => {
                // A lost lease says nothing about the image, so it uses up no attempt.
                let attempt = u32::try_from(claimed.job.attempt - claimed.job.lost).unwrap_or(1);
                let policy = failure.retry;
                let delay = policy.and_then(|policy| policy.delay(attempt, failure.retry_after, fastrand::f64()));
                let (code, message) = (failure.code, failure.message.clone());
                match delay {
                    Some(delay) if failure.decoder_died => {
                        (Settlement::Crash(message, delay), Ending::Crashed(failure))
                    }
                    Some(delay) => (Settlement::Retry(code, message, delay), Ending::Retry(failure, delay)),
                    None => (Settlement::Fail(code, message), Ending::Failed(failure)),
                }
            }
        };
        match self.insist(claimed, settlement).await {
            Ok(()) => ending,
            Err(Error::LeaseLost) => Ending::Lost,
            Err(error @ Error::BlobGone { .. }) => self.make_again(claimed, error).await,
            Err(error) => Ending::Unsettled(error),
        }
    }

    /// What was made is gone before anything referred to it: it lay for longer than the grace of `pm gc`, or an older process
    /// looked after the store.
    async fn make_again(&self, claimed: &Claimed, error: Error) -> Ending {
        const SOON: Duration = Duration::from_secs(1);
        tracing::warn!(job.id = %claimed.job.id, %error, "a picture is made again");
        let failure =
            Failure::transient(error.code(), "a rendition was removed before it was settled; it is made again");
        let again = Settlement::Retry(failure.code, failure.message.clone(), SOON);
        match self.insist(claimed, again).await {
            Ok(()) => Ending::Retry(failure, SOON),
            Err(Error::LeaseLost) => Ending::Lost,
            Err(error) => Ending::Unsettled(error),
        }
    }

    /// Writes a result, again and again while the database is away. Should this process die meanwhile, the lease runs out
    /// and the work is done again.
    async fn insist(&self, claimed: &Claimed, settlement: Settlement) -> Result<(), Error> {
        const TRIES: u32 = 12;
        let mut pause = Duration::from_millis(100);
        let mut tries = 1;
        loop {
            match self.catalog.settle(claimed, settlement.clone()).await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a result cannot be stored for now");
                }
                outcome => return outcome,
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn wind_down(&self, mut running: JoinSet<()>, release: &stop::Stopper) {
        if ended_within(GRACE, &mut running).await {
            return;
        }
        tracing::info!(jobs = running.len(), "giving back what is still running");
        release.stop();
        if !ended_within(RELEASE_LIMIT, &mut running).await {
            tracing::warn!(jobs = running.len(), "some jobs could not be given back; their leases will run out");
        }
    }
}

async fn ended_within(limit: Duration, running: &mut JoinSet<()>) -> bool {
    tokio::time::timeout(limit, async { while running.join_next().await.is_some() {} }).await.is_ok()
}

/// Lets go of what has ended; whatever broke down is known from the log of panics, and its lease runs out.
fn reap(running: &mut JoinSet<()>) {
    while running.try_join_next().is_some() {}
}

async fn free_slot(slots: &Arc<Semaphore>, stop: &mut Stop) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.wanted() => None,
        slot = slots.clone().acquire_owned() => slot.ok(),
    }
}
