//! Periodic maintenance: pending invalidations, lost messages, expired jobs, and metrics of the queue.

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

/// Time after which a process that made a change has invalidated the cache or failed to.
const INVALIDATION_TIMEOUT: Duration = Duration::from_secs(2);
/// Retention of the invalidation log for in-process caches. A cache that has not read it for longer drops all entries.
const INVALIDATION_LOG_RETENTION: Duration = Duration::from_secs(600);
/// Maximum time between dispatching a job and its claim.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum time between receiving a message and claiming a job.
const CLAIM_DURATION: Duration = Duration::from_millis(250);
/// Retention of finished jobs, for investigation.
const FINISHED_JOB_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
const BATCH_ROWS: u64 = 1_000;

impl Catalog {
    /// Sends overdue invalidations to a shared cache and deletes processed rows.
    ///
    /// An invalidation is overdue if the process that made the change died. Returns whether the cache answered.
    pub async fn flush_invalidations(&self) -> Result<bool, Error> {
        let shared = matches!(self.cache(), Cache::Redis(_));
        let flushed = self.0.pending_invalidations.take();
        if !flushed.is_empty() {
            self.delete_invalidations(&flushed).await?;
        }
        self.flush_older_than(if shared { INVALIDATION_TIMEOUT } else { INVALIDATION_LOG_RETENTION }).await
    }

    /// Sends invalidations older than `age` to a shared cache and deletes their rows.
    ///
    /// Returns `false` if the cache does not answer.
    pub(crate) async fn flush_older_than(&self, age: Duration) -> Result<bool, Error> {
        let shared = matches!(self.cache(), Cache::Redis(_));
        loop {
            let now = self.now().await?;
            // A row with a future time was written before the database's clock went back. A second invalidation does no
            // harm. The log of in-process caches keeps such rows.
            let future = shared.then(|| now.plus(INVALIDATION_TIMEOUT));
            let rows = invalidations::overdue(&self.database().read(), now.minus(age), future, BATCH_ROWS).await?;
            if rows.is_empty() {
                return Ok(true);
            }
            let ids: Vec<_> = rows.iter().map(|row| row.product_id).collect();
            if shared && self.cache().invalidate(&ids).await.is_err() {
                return Ok(false);
            }
            self.delete_invalidations(&rows).await?;
        }
    }

    async fn delete_invalidations(&self, rows: &[invalidations::Invalidation]) -> Result<(), Error> {
        let write = self.database().begin().await?;
        for some in rows.chunks(1_000) {
            invalidations::delete(&*write, some).await?;
        }
        Ok(write.commit().await?)
    }

    /// Sends a batch of due jobs to the broker; returns how many.
    ///
    /// A job that the broker does not confirm stays due.
    pub async fn dispatch_due(&self) -> Result<usize, Error> {
        const BATCH: u64 = 256;
        let dispatched = self.take_undispatched(BATCH).await?;
        if let Err(error) = self.queue().publish(&dispatched).await {
            let left: Vec<_> = dispatched.into_iter().filter(|id| !error.confirmed.contains(id)).collect();
            let write = self.database().begin().await?;
            dispatch::undo_dispatch(&*write, &left).await?;
            write.commit().await?;
            return Err(Error::Unavailable { component: "queue", source: Arc::new(error) });
        }
        Ok(dispatched.len())
    }

    async fn take_undispatched(&self, limit: u64) -> Result<Vec<JobId>, Error> {
        let write = self.database().begin().await?;
        let dispatched = dispatch::take_undispatched(&*write, write.now().await?, limit).await?;
        write.commit().await?;
        Ok(dispatched)
    }

    /// Dispatches jobs again whose messages the broker has lost; returns how many.
    ///
    /// A message says that some job is due, not which one. Messages are lost if jobs dispatched a while ago still wait
    /// while the broker's queue is empty. A duplicate message does no harm: its consumer finds no job to claim.
    pub async fn recover_messages(&self) -> Result<u64, Error> {
        let before = self.now().await?.minus(CLAIM_TIMEOUT);
        if !self.queue().needs_relay() || !dispatch::any_dispatched(&self.database().read(), before).await? {
            return Ok(0);
        }
        let backlog = self.queue().backlog().await;
        let backlog = backlog.map_err(|error| Error::Unavailable { component: "queue", source: Arc::new(error) })?;
        if backlog.ready > 0 {
            return Ok(0);
        }
        // Consumers that have just received a message claim a job in this time.
        tokio::time::sleep(CLAIM_DURATION).await;
        let write = self.database().begin().await?;
        let again = dispatch::dispatch_again(&*write, before, BATCH_ROWS).await?;
        write.commit().await?;
        if again > 0 {
            self.queue().wake();
        }
        Ok(again)
    }

    /// Deletes jobs that ended over a week ago, at most 4,000; returns how many.
    pub async fn delete_expired_jobs(&self) -> Result<u64, Error> {
        const BATCH: u64 = 500;
        const BATCHES: u64 = 8;
        let before = self.now().await?.minus(FINISHED_JOB_RETENTION);
        let mut deleted = 0;
        // A read does not take the write lock.
        while deleted < BATCH * BATCHES && finished::any(&self.database().read(), before).await? {
            let write = self.database().begin().await?;
            let some = finished::delete_expired(&*write, before, BATCH).await?;
            write.commit().await?;
            if some == 0 {
                break;
            }
            deleted += some;
        }
        Ok(deleted)
    }

    /// Returns the number of jobs in each state.
    pub async fn depth(&self) -> Result<Depth, Error> {
        Ok(jobs::depth(&self.database().read()).await?)
    }

    /// Sets the queue gauges: depth by state, and age of the oldest queued job.
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
