//! The consumer: as many jobs at a time as there are slots, each under its lease, none lost when it stops.

use std::{sync::Arc, time::Duration, time::Instant};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{
    catalog::{Catalog, Claimed, Error},
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
/// Jobs that are running may end within this after the stop; then they are given back.
const GRACE: Duration = Duration::from_secs(10);
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
        loop {
            while running.try_join_next().is_some() {}
            let next = tokio::select! {
                () = stop.wanted() => break,
                next = consumer.next() => next,
            };
            match next {
                Next::Job(delivery) => {
                    let Some(slot) = free_slot(&slots, &mut stop).await else {
                        delivery.requeue().await;
                        break;
                    };
                    let (worker, released, stop) = (self.clone(), released.clone(), stop.clone());
                    running.spawn(async move { worker.deliver(delivery, slot, released, stop).await });
                }
                Next::Due => self.claim_due(&slots, &mut stop, &released, &mut running).await,
            }
        }
        consumer.close().await;
        self.wind_down(running, &release).await;
    }

    /// Runs every job that is due, and those that become due by it, one after the other; answers how many attempts.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn drain(&self) -> Result<usize, Error> {
        let (_stopper, released) = stop::channel();
        let mut attempts = 0;
        while let Some(claimed) = self.catalog.claim_next().await? {
            self.attempt(claimed, released.clone()).await;
            attempts += 1;
        }
        Ok(attempts)
    }

    async fn claim_due(&self, slots: &Arc<Semaphore>, stop: &mut Stop, released: &Stop, running: &mut JoinSet<()>) {
        while let Some(slot) = free_slot(slots, stop).await {
            match self.catalog.claim_next().await {
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
            match self.catalog.claim(delivery.job_id).await {
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

    async fn attempt(&self, claimed: Claimed, mut released: Stop) {
        let began = Instant::now();
        let ending = tokio::select! {
            outcome = self.handler.run(&claimed) => self.settle(&claimed, outcome).await,
            () = lease::keep(&self.catalog, &claimed.job) => Ending::Lost,
            () = released.wanted() => match self.catalog.release(&claimed).await {
                Ok(()) => Ending::Released,
                Err(error) => {
                    tracing::warn!(%error, "a job could not be given back; its lease will run out");
                    Ending::Lost
                }
            },
        };
        report(&claimed, &ending, began);
    }

    async fn settle(&self, claimed: &Claimed, outcome: Result<Report, Failure>) -> Ending {
        match outcome {
            Ok(done) => {
                let stored = self.insist(|| self.catalog.finish_image(claimed, done.outcome.clone())).await;
                if stored { Ending::Ready(done.steps) } else { Ending::Lost }
            }
            Err(failure) => {
                let attempt = u32::try_from(claimed.job.attempt).unwrap_or(u32::MAX);
                let delay =
                    failure.retry.and_then(|policy| policy.delay(attempt, failure.retry_after, fastrand::f64()));
                let (code, message) = (failure.code, failure.message.as_str());
                let stored = match delay {
                    Some(delay) => self.insist(|| self.catalog.retry_image(claimed, code, message, delay)).await,
                    None => self.insist(|| self.catalog.fail_image(claimed, code, message)).await,
                };
                match (stored, delay) {
                    (false, _) => Ending::Lost,
                    (true, Some(delay)) => Ending::Retry(failure, delay),
                    (true, None) => Ending::Failed(failure),
                }
            }
        }
    }

    /// Writes a result, again and again while the database is away; `false` if it is not wanted any more. Should this
    /// process die meanwhile, the lease runs out and the work is done again.
    async fn insist<F: Future<Output = Result<(), Error>>>(&self, write: impl Fn() -> F) -> bool {
        const TRIES: u32 = 12;
        let mut pause = Duration::from_millis(100);
        for _ in 0..TRIES {
            match write().await {
                Ok(()) => return true,
                Err(Error::LeaseLost) => return false,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a result cannot be stored for now")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        false
    }

    async fn wind_down(&self, mut running: JoinSet<()>, release: &stop::Stopper) {
        let ended = tokio::time::timeout(GRACE, async { while running.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::info!(jobs = running.len(), "giving back what is still running");
            release.stop();
            while running.join_next().await.is_some() {}
        }
    }
}

async fn free_slot(slots: &Arc<Semaphore>, stop: &mut Stop) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.wanted() => None,
        slot = slots.clone().acquire_owned() => slot.ok(),
    }
}
