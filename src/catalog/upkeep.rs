//! What some process has to look after now and then: changes that the cache was not told of, messages that got lost, rows of
//! jobs that were done long ago, and the figures of the queue.

use std::{sync::Arc, time::Duration};

use crate::{
    cache::Cache,
    catalog::{Catalog, Error},
    db::{
        cache::invalidations,
        jobs::{self, dispatch, finished},
    },
    domain::{Depth, JobId},
};

/// Whoever made a change tells the cache within this, or cannot reach it.
const TELLING: Duration = Duration::from_secs(2);
/// How long the log of changes is kept for other processes' in-process caches; one that looked away for longer drops all.
const LOG_KEPT: Duration = Duration::from_secs(600);
/// A message is out of the broker's hands for at most this before its job is claimed.
const HANDED_OVER: Duration = Duration::from_secs(15);
/// A consumer claims the job of a message that it got within this.
const CLAIMING: Duration = Duration::from_millis(250);
/// How long the row of a finished job is kept, for people who look into what happened.
const FINISHED_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
const AT_ONCE: u64 = 1_000;

impl Catalog {
    /// Tells a shared cache of changes whose makers died before they could, and forgets rows that served their purpose. Returns
    /// whether the cache could be told.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn keep_cache_told(&self) -> Result<bool, Error> {
        let shared = matches!(self.cache(), Cache::Redis(_));
        let told = self.0.told.take();
        if !told.is_empty() {
            self.forget(&told).await?;
        }
        self.tell_left_over(if shared { TELLING } else { LOG_KEPT }).await
    }

    /// Tells a shared cache of changes that are older than `age`, and forgets their rows; `false` if the cache does not answer.
    pub(crate) async fn tell_left_over(&self, age: Duration) -> Result<bool, Error> {
        let shared = matches!(self.cache(), Cache::Redis(_));
        loop {
            let now = self.now().await?;
            // A change to come was made before the database's clock went back. Telling it twice does no harm; the log of
            // caches in processes is kept.
            let to_come = shared.then(|| now.plus(TELLING));
            let rows = invalidations::left_over(&self.database().read(), now.minus(age), to_come, AT_ONCE).await?;
            if rows.is_empty() {
                return Ok(true);
            }
            let ids: Vec<_> = rows.iter().map(|row| row.product_id).collect();
            if shared && self.cache().invalidate(&ids).await.is_err() {
                return Ok(false);
            }
            self.forget(&rows).await?;
        }
    }

    async fn forget(&self, rows: &[invalidations::Invalidation]) -> Result<(), Error> {
        let write = self.database().begin().await?;
        for some in rows.chunks(1_000) {
            invalidations::forget(&*write, some).await?;
        }
        Ok(write.commit().await?)
    }

    /// Hands some due jobs to the broker; answers how many, none if none is due. A job that it does not take stays due.
    ///
    /// # Errors
    /// If the database or the broker does not answer.
    pub async fn dispatch_due(&self) -> Result<usize, Error> {
        const BATCH: u64 = 256;
        let taken = self.take_undispatched(BATCH).await?;
        if let Err(error) = self.queue().publish(&taken).await {
            let left: Vec<_> = taken.into_iter().filter(|id| !error.confirmed.contains(id)).collect();
            let write = self.database().begin().await?;
            dispatch::undo_dispatch(&*write, &left).await?;
            write.commit().await?;
            return Err(Error::Unavailable { component: "queue", source: Arc::new(error) });
        }
        Ok(taken.len())
    }

    async fn take_undispatched(&self, limit: u64) -> Result<Vec<JobId>, Error> {
        let write = self.database().begin().await?;
        let taken = dispatch::take_undispatched(&*write, write.now().await?, limit).await?;
        write.commit().await?;
        Ok(taken)
    }

    /// Makes jobs due again whose messages the broker has lost; answers how many.
    ///
    /// A message says that a job is due, not which, so any message serves for any job. Some are lost if jobs wait that were handed
    /// over a while ago, and the broker has no message left. A message that is sent twice does no harm: the second finds nothing to
    /// claim.
    ///
    /// # Errors
    /// If the database or the broker does not answer.
    pub async fn recover_messages(&self) -> Result<u64, Error> {
        let before = self.now().await?.minus(HANDED_OVER);
        if !self.queue().needs_relay() || !dispatch::any_dispatched(&self.database().read(), before).await? {
            return Ok(0);
        }
        let backlog = self.queue().backlog().await;
        let backlog = backlog.map_err(|error| Error::Unavailable { component: "queue", source: Arc::new(error) })?;
        if backlog.ready > 0 {
            return Ok(0);
        }
        // What consumers have just been handed is claimed by then.
        tokio::time::sleep(CLAIMING).await;
        let write = self.database().begin().await?;
        let again = dispatch::dispatch_again(&*write, before, AT_ONCE).await?;
        write.commit().await?;
        if again > 0 {
            self.queue().wake();
        }
        Ok(again)
    }

    /// Removes jobs that were done a week ago, up to 4,000 of them; answers how many.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn forget_finished(&self) -> Result<u64, Error> {
        const BATCH: u64 = 500;
        const BATCHES: u64 = 8;
        let before = self.now().await?.minus(FINISHED_KEPT);
        let mut forgotten = 0;
        // Looking costs no turn at writing.
        while forgotten < BATCH * BATCHES && finished::any(&self.database().read(), before).await? {
            let write = self.database().begin().await?;
            let some = finished::forget(&*write, before, BATCH).await?;
            write.commit().await?;
            if some == 0 {
                break;
            }
            forgotten += some;
        }
        Ok(forgotten)
    }

    /// How full the queue is.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn depth(&self) -> Result<Depth, Error> {
        Ok(jobs::depth(&self.database().read()).await?)
    }

    /// Sets the gauges of the queue: depth by state, and the age of the oldest waiting job in seconds.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn measure_queue(&self) -> Result<(), Error> {
        let (depth, now) = (self.depth().await?, self.now().await?);
        for (state, count) in [("queued", depth.queued), ("running", depth.running), ("dead", depth.dead)] {
            metrics::gauge!("pm_queue_jobs", "state" => state).set(count as f64);
        }
        let age = depth.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        metrics::gauge!("pm_queue_oldest_job_age_seconds").set(age.as_secs_f64());
        Ok(())
    }
}
