//! The consumer: as many jobs at a time as there are slots, each under its lease, none lost when it stops.

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

use crate::{
    catalog::{Catalog, Claimed, Due, Error, Found, Settlement},
    jobs::{Failure, Handler, Report},
    queue::{Delivery, Next, Queue},
    stop::{self, Stop},
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

/// While one picture is decoded others are downloaded, so that no core waits for an origin.
const SLOTS_PER_DECODER: usize = 4;
/// With a broker, jobs without a message are looked for this often: those of dead workers, whose new messages wait behind all
/// others, and those whose message went to a worker that had enough jobs of their user.
const LOOK_FOR_JOBS: Duration = Duration::from_secs(1);
/// While jobs are due for which there is no place, jobs are looked for this often, and whenever one of this worker's ends.
const LOOK_FOR_PLACE: Duration = Duration::from_millis(250);
/// Jobs that are running may end within this after the stop; then they are given back.
const GRACE: Duration = Duration::from_secs(10);
/// Giving back takes at most this.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
/// A claim or a result is tried again for as long as the database is away, with pauses up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The jobs that are worked on.
struct Work {
    running: JoinSet<()>,
    /// Tells them that they are given back.
    released: Stop,
}

/// What came of looking for a job.
enum Claim {
    Job(Box<Claimed>, Share),
    /// Jobs are due, of users or from hosts of which enough are worked on.
    NoPlace,
    Nothing,
}

impl Worker {
    /// A worker whose handler decodes `decoders` pictures at a time and downloads `downloads_per_host` from one host.
    pub fn new(catalog: Catalog, queue: Queue, handler: Handler, decoders: usize, downloads_per_host: usize) -> Self {
        let slots = decoders.max(1) * SLOTS_PER_DECODER;
        Self { catalog, queue, handler, slots, load: Load::new(slots, downloads_per_host) }
    }

    /// Consumes until `stop`; then running jobs end, or are given back when the grace is over.
    pub async fn run(&self, mut stop: Stop) {
        let prefetch = u16::try_from(self.slots).unwrap_or(u16::MAX);
        let mut consumer = self.queue.consume(prefetch);
        let slots = Arc::new(Semaphore::new(self.slots));
        let (release, released) = stop::channel();
        let mut work = Work { running: JoinSet::new(), released };
        let mut look = tokio::time::interval(LOOK_FOR_JOBS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Jobs are due for which there was no place.
        let mut waits_for_place = false;
        loop {
            work.reap();
            tokio::select! {
                () = stop.wanted() => break,
                _ = look.tick(), if self.queue.needs_relay() => {
                    self.claim_orphans(&slots, &mut stop, &mut work).await;
                    waits_for_place |= self.claim_for_free_slots(&slots, &mut work).await;
                }
                () = self.place_is_free(), if waits_for_place => {
                    waits_for_place = self.claim_due(&slots, &mut stop, &mut work).await;
                }
                // What is told meanwhile is found in its turn.
                next = consumer.next(), if !waits_for_place => match next {
                    Next::Due => waits_for_place = self.claim_due(&slots, &mut stop, &mut work).await,
                    Next::Job(delivery) => {
                        waits_for_place = self.claim_for(delivery, &slots, &mut stop, &mut work).await;
                    }
                },
            }
        }
        tokio::join!(consumer.close(), self.wind_down(work.running, &release));
    }

    /// Runs every job that is due, and those that become due by it, one after the other; answers how many attempts.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn drain(&self) -> Result<usize, Error> {
        let (_stopper, released) = stop::channel();
        let mut attempts = 0;
        while let Claim::Job(claimed, share) = self.claim().await? {
            self.attempt(*claimed, &share, released.clone()).await;
            attempts += 1;
        }
        Ok(attempts)
    }
    /// Claims due jobs until there is none left; answers whether some are left for which there is no place.
    async fn claim_due(&self, slots: &Arc<Semaphore>, stop: &mut Stop, work: &mut Work) -> bool {
        while let Some(slot) = free_slot(slots, stop).await {
            if let ControlFlow::Break(waits_for_place) = self.claim_one(slot, work).await {
                return waits_for_place;
            }
        }
        false
    }

    /// Claims due jobs for the slots that are free now; answers whether some are left for which there is no place.
    async fn claim_for_free_slots(&self, slots: &Arc<Semaphore>, work: &mut Work) -> bool {
        while let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            if let ControlFlow::Break(waits_for_place) = self.claim_one(slot, work).await {
                return waits_for_place;
            }
        }
        false
    }

    /// Claims a due job; without one, answers whether some are left for which there is no place.
    async fn claim_one(&self, slot: OwnedSemaphorePermit, work: &mut Work) -> ControlFlow<bool> {
        work.reap();
        match self.claim().await {
            Ok(Claim::Job(claimed, share)) => {
                self.begin(*claimed, share, slot, None, work);
                ControlFlow::Continue(())
            }
            Ok(Claim::NoPlace) => ControlFlow::Break(true),
            Ok(Claim::Nothing) => ControlFlow::Break(false),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no job can be claimed for now");
                ControlFlow::Break(true)
            }
        }
    }

    /// Claims a job for a message of the broker, which says that one is due, not which: users take turns. The message goes only
    /// when the job's row says what became of it: until then a crash brings it back. Answers whether jobs are due for which there is
    /// no place.
    async fn claim_for(&self, delivery: Delivery, slots: &Arc<Semaphore>, stop: &mut Stop, work: &mut Work) -> bool {
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
                    return matches!(found, Claim::NoPlace);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a job cannot be claimed for now");
                    tokio::select! {
                        () = stop.wanted() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Claims jobs of workers that died.
    async fn claim_orphans(&self, slots: &Arc<Semaphore>, stop: &mut Stop, work: &mut Work) {
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
                    tracing::warn!(error = &error as &dyn std::error::Error, "no job can be claimed for now");
                    return;
                }
            }
        }
    }

    /// Claims a job of the next user for whom there is a place.
    async fn claim(&self) -> Result<Claim, Error> {
        let claiming = self.load.claiming().await;
        let due = Due::Next { after: claiming.last(), busy: claiming.busy() };
        Ok(match self.catalog.claim(due).await? {
            Found::Claimed(claimed) => {
                let share = claiming.add(&claimed.job);
                Claim::Job(claimed, share)
            }
            Found::Busy => Claim::NoPlace,
            Found::Nothing => Claim::Nothing,
        })
    }

    /// Ends when this worker has become less busy, or another one may have.
    async fn place_is_free(&self) {
        tokio::select! {
            () = self.load.lighter() => {}
            () = tokio::time::sleep(LOOK_FOR_PLACE) => {}
        }
    }

    /// Begins to work on a job, whose message goes when it is done with.
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

    /// The lease is kept until the result is stored.
    async fn attempt(&self, claimed: Claimed, share: &Share, mut released: Stop) {
        let began = Instant::now();
        let work = async {
            let run = self.handler.run(&claimed, &self.catalog, || share.downloaded());
            let running = AssertUnwindSafe(run).catch_unwind();
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

impl Work {
    /// Lets go of what has ended; whatever broke down is known from the log of panics, and its lease runs out.
    fn reap(&mut self) {
        while self.running.try_join_next().is_some() {}
    }
}

async fn free_slot(slots: &Arc<Semaphore>, stop: &mut Stop) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.wanted() => None,
        slot = slots.clone().acquire_owned() => slot.ok(),
    }
}
