//! The consumer: runs as many jobs at a time as it has slots.
//!
//! Each job has a lease. When the consumer stops, no job is lost.

use std::{
    ops::ControlFlow,
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
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Claimed, Due, Error, Found, Settlement},
    jobs::{Failure, Handler, Report},
    queue::{Delivery, Next, Queue},
    worker::{
        lease,
        load::{Load, Share},
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
    load: Load,
}

/// Slots per decoder: while one image is decoded, others are downloaded.
const SLOTS_PER_DECODER: usize = 4;
/// Interval of looking for due jobs without a message, if there is a broker: jobs of dead workers, whose new messages
/// are last in the queue, and jobs whose message reached a worker that was at its limit for their user.
const JOB_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of looking for due jobs while all of them exceed a limit of this worker. It also looks whenever one of its
/// jobs ends.
const CAPACITY_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Time that running jobs have to end after a stop; then they are released.
const GRACE: Duration = Duration::from_secs(10);
/// Time limit for releasing jobs.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
/// Maximum pause between retries of a claim or a result while the database is unavailable.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// The running jobs.
struct Work {
    running: JoinSet<()>,
    /// Signals the jobs that they are released.
    released: CancellationToken,
}

/// Result of claiming a job.
enum Claim {
    Job(Box<Claimed>, Share),
    /// Jobs are due, but their users or hosts are at a limit of this worker.
    NoCapacity,
    Nothing,
}

impl Worker {
    /// Creates a worker whose handler decodes `decoders` images at a time and downloads `downloads_per_host` images at
    /// a time from one host.
    pub fn new(catalog: Catalog, queue: Queue, handler: Handler, decoders: usize, downloads_per_host: usize) -> Self {
        let slots = decoders.max(1) * SLOTS_PER_DECODER;
        Self { catalog, queue, handler, slots, load: Load::new(slots, downloads_per_host) }
    }

    /// Runs jobs until `stop`; then waits for running jobs and releases those that exceed the grace period.
    pub async fn run(&self, stop: CancellationToken) {
        let prefetch = u16::try_from(self.slots).unwrap_or(u16::MAX);
        let mut consumer = self.queue.consume(prefetch);
        let slots = Arc::new(Semaphore::new(self.slots));
        let mut work = Work { running: JoinSet::new(), released: CancellationToken::new() };
        let mut poll = tokio::time::interval(JOB_POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether due jobs exceeded a limit of this worker.
        let mut waits_for_place = false;
        loop {
            work.reap();
            tokio::select! {
                () = stop.cancelled() => break,
                _ = poll.tick(), if self.queue.needs_relay() => {
                    self.claim_orphans(&slots, &stop, &mut work).await;
                    waits_for_place |= self.claim_for_free_slots(&slots, &mut work).await;
                }
                () = self.place_is_free(), if waits_for_place => {
                    waits_for_place = self.claim_due(&slots, &stop, &mut work).await;
                }
                // Messages that arrive meanwhile are read later.
                next = consumer.next(), if !waits_for_place => match next {
                    Next::Due => waits_for_place = self.claim_due(&slots, &stop, &mut work).await,
                    Next::Job(delivery) => {
                        waits_for_place = self.claim_for(delivery, &slots, &stop, &mut work).await;
                    }
                },
            }
        }
        tokio::join!(consumer.close(), self.wind_down(work.running, &work.released));
    }

    /// Runs all due jobs, and those that they make due, one after the other; returns the number of attempts.
    pub async fn drain(&self) -> Result<usize, Error> {
        let released = CancellationToken::new();
        let mut attempts = 0;
        while let Claim::Job(claimed, share) = self.claim().await? {
            self.attempt(*claimed, &share, released.clone()).await;
            attempts += 1;
        }
        Ok(attempts)
    }
    /// Claims due jobs until none is left; returns whether some exceed a limit of this worker.
    async fn claim_due(&self, slots: &Arc<Semaphore>, stop: &CancellationToken, work: &mut Work) -> bool {
        while let Some(slot) = free_slot(slots, stop).await {
            if let ControlFlow::Break(waits_for_place) = self.claim_one(slot, work).await {
                return waits_for_place;
            }
        }
        false
    }

    /// Claims due jobs for the free slots; returns whether some exceed a limit of this worker.
    async fn claim_for_free_slots(&self, slots: &Arc<Semaphore>, work: &mut Work) -> bool {
        while let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            if let ControlFlow::Break(waits_for_place) = self.claim_one(slot, work).await {
                return waits_for_place;
            }
        }
        false
    }

    /// Claims one due job. If it claims none, it returns whether due jobs exceed a limit of this worker.
    async fn claim_one(&self, slot: OwnedSemaphorePermit, work: &mut Work) -> ControlFlow<bool> {
        work.reap();
        match self.claim().await {
            Ok(Claim::Job(claimed, share)) => {
                self.begin(*claimed, share, slot, None, work);
                ControlFlow::Continue(())
            }
            Ok(Claim::NoCapacity) => ControlFlow::Break(true),
            Ok(Claim::Nothing) => ControlFlow::Break(false),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot claim a job; retrying");
                ControlFlow::Break(true)
            }
        }
    }

    /// Claims a job for a message from the broker; returns whether due jobs exceed a limit of this worker.
    ///
    /// A message says that some job is due, not which one, because users take turns. The message is acknowledged only
    /// after the result is stored, so the broker redelivers it after a crash.
    async fn claim_for(
        &self,
        delivery: Delivery,
        slots: &Arc<Semaphore>,
        stop: &CancellationToken,
        work: &mut Work,
    ) -> bool {
        let mut pause = Duration::from_millis(100);
        loop {
            let Some(slot) = free_slot(slots, stop).await else {
                delivery.requeue().await;
                return false;
            };
            match self.claim().await {
                Ok(Claim::Job(claimed, share)) => {
                    self.begin(*claimed, share, slot, Some(delivery), work);
                    return false;
                }
                Ok(found) => {
                    delivery.ack().await;
                    return matches!(found, Claim::NoCapacity);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot claim a job; retrying");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Claims jobs of dead workers.
    async fn claim_orphans(&self, slots: &Arc<Semaphore>, stop: &CancellationToken, work: &mut Work) {
        while let Some(slot) = free_slot(slots, stop).await {
            work.reap();
            let claiming = self.load.claiming().await;
            match self.catalog.claim(Due::Orphan).await.map(Found::claimed) {
                Ok(Some(claimed)) => {
                    let share = claiming.add(&claimed.job);
                    self.begin(claimed, share, slot, None, work);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot claim a job; retrying");
                    return;
                }
            }
        }
    }

    /// Claims a job of the next user below the limits.
    async fn claim(&self) -> Result<Claim, Error> {
        let claiming = self.load.claiming().await;
        let due = Due::Next { after: claiming.last(), at_capacity: claiming.at_capacity() };
        Ok(match self.catalog.claim(due).await? {
            Found::Claimed(claimed) => {
                let share = claiming.add(&claimed.job);
                Claim::Job(claimed, share)
            }
            Found::AtCapacity => Claim::NoCapacity,
            Found::Nothing => Claim::Nothing,
        })
    }

    /// Waits until this worker, or perhaps another one, has less load.
    async fn place_is_free(&self) {
        tokio::select! {
            () = self.load.lighter() => {}
            () = tokio::time::sleep(CAPACITY_POLL_INTERVAL) => {}
        }
    }

    /// Starts a claimed job; acknowledges its message when the job has ended.
    fn begin(
        &self,
        claimed: Claimed,
        share: Share,
        slot: OwnedSemaphorePermit,
        delivery: Option<Delivery>,
        work: &mut Work,
    ) {
        let (worker, released) = (self.clone(), work.released.clone());
        work.running.spawn(async move {
            worker.attempt(claimed, &share, released).await;
            if let Some(delivery) = delivery {
                delivery.ack().await;
            }
            drop(slot);
        });
    }

    /// Runs one attempt; extends the lease until the result is stored.
    async fn attempt(&self, claimed: Claimed, share: &Share, released: CancellationToken) {
        let began = Instant::now();
        let work = async {
            let run = self.handler.run(&claimed, &self.catalog, || share.downloaded());
            let running = AssertUnwindSafe(run).catch_unwind();
            // The panic hook logs the reason. Without this, the job would restart forever after each lost lease.
            let outcome = running.await.unwrap_or_else(|_| Err(Failure::broken_down()));
            self.settle(&claimed, outcome).await
        };
        let ending = tokio::select! {
            ending = work => ending,
            () = lease::keep(&self.catalog, &claimed.job) => Ending::Lost,
            () = released.cancelled() => match self.catalog.settle(&claimed, Settlement::Release).await {
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
                // A lost lease is not the image's fault, so it does not count as an attempt.
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
        match self.settle_with_retries(claimed, settlement).await {
            Ok(()) => ending,
            Err(Error::LeaseLost) => Ending::Lost,
            Err(error @ Error::BlobGone { .. }) => self.make_again(claimed, error).await,
            Err(error) => Ending::Unsettled(error),
        }
    }

    /// Retries a job whose renditions were removed before they were stored in the database: they were older than the
    /// grace period of `pm gc`, or an older process ran `pm gc`.
    async fn make_again(&self, claimed: &Claimed, error: Error) -> Ending {
        const RETRY_DELAY: Duration = Duration::from_secs(1);
        tracing::warn!(job.id = %claimed.job.id, %error, "a rendition is missing; processing the image again");
        let failure = Failure::transient(error.code(), "a rendition is missing; processing the image again");
        let again = Settlement::Retry(failure.code, failure.message.clone(), RETRY_DELAY);
        match self.settle_with_retries(claimed, again).await {
            Ok(()) => Ending::Retry(failure, RETRY_DELAY),
            Err(Error::LeaseLost) => Ending::Lost,
            Err(error) => Ending::Unsettled(error),
        }
    }

    /// Stores a result, with retries while the database is unavailable. If the process dies, the lease expires and the
    /// job runs again.
    async fn settle_with_retries(&self, claimed: &Claimed, settlement: Settlement) -> Result<(), Error> {
        const TRIES: u32 = 12;
        let mut pause = Duration::from_millis(100);
        let mut tries = 1;
        loop {
            match self.catalog.settle(claimed, settlement.clone()).await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot store a job's result; retrying");
                }
                outcome => return outcome,
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn wind_down(&self, mut running: JoinSet<()>, released: &CancellationToken) {
        if ended_within(GRACE, &mut running).await {
            return;
        }
        tracing::info!(jobs = running.len(), "grace period is over; releasing running jobs");
        released.cancel();
        if !ended_within(RELEASE_LIMIT, &mut running).await {
            tracing::warn!(jobs = running.len(), "some jobs could not be released; their leases will expire");
        }
    }
}

async fn ended_within(limit: Duration, running: &mut JoinSet<()>) -> bool {
    tokio::time::timeout(limit, async { while running.join_next().await.is_some() {} }).await.is_ok()
}

impl Work {
    /// Removes ended tasks. The panic hook has logged panics; the leases of those jobs expire.
    fn reap(&mut self) {
        while self.running.try_join_next().is_some() {}
    }
}

async fn free_slot(slots: &Arc<Semaphore>, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.cancelled() => None,
        slot = slots.clone().acquire_owned() => slot.ok(),
    }
}
