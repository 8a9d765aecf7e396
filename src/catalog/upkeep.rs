//! What some process has to look after now and then: changes that the cache was not told of, messages that got lost, and
//! the figures of the queue.

use std::time::Duration;

use crate::{
    cache::Cache,
    catalog::{Catalog, Error},
    clock::Timestamp,
    db::{
        dispatch, invalidations,
        jobs::{self, Depth},
    },
    domain::JobId,
};

/// Whoever made a change tells the cache within this, or cannot reach it.
const TELLING: Duration = Duration::from_secs(2);
/// How long the log of changes is kept for other processes' in-process caches; one that looked away for longer drops all.
const LOG_KEPT: Duration = Duration::from_secs(600);
/// A message is out of the broker's hands for at most this before its job is claimed.
const HANDED_OVER: Duration = Duration::from_secs(15);
/// A consumer claims the job of a message that it got within this.
const CLAIMING: Duration = Duration::from_millis(250);
/// More messages than a consumer ever holds.
const HELD_BY_CONSUMER: u64 = 256;
const AT_ONCE: u64 = 1_000;

impl Catalog {
    /// Tells a shared cache of changes whose makers died before they could, and forgets rows that served their purpose.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn keep_cache_told(&self) -> Result<(), Error> {
        let shared = matches!(self.cache(), Cache::Redis(_));
        let told = self.0.told.take();
        if !told.is_empty() {
            self.forget(&told).await?;
        }
        let age = if shared { TELLING } else { LOG_KEPT };
        loop {
            let now = self.clock().now();
            let rows = invalidations::left_over(self.database().read(), now.minus(age), AT_ONCE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let ids: Vec<_> = rows.iter().map(|row| row.product_id).collect();
            if shared && self.cache().invalidate(&ids).await.is_err() {
                return Ok(());
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

    /// Hands due jobs to the broker until none is left; answers how many. A job that it does not take stays due.
    ///
    /// # Errors
    /// If the database or the broker does not answer.
    pub async fn dispatch_due(&self) -> Result<usize, Error> {
        const BATCH: u64 = 256;
        let mut dispatched = 0;
        loop {
            let taken = self.take_undispatched(BATCH).await?;
            if taken.is_empty() {
                return Ok(dispatched);
            }
            dispatched += taken.len();
            if let Err(error) = self.queue().publish(&taken).await {
                let left: Vec<_> = taken.into_iter().filter(|id| !error.confirmed.contains(id)).collect();
                let write = self.database().begin().await?;
                dispatch::undo_dispatch(&*write, &left).await?;
                write.commit().await?;
                return Err(Error::Unavailable { component: "queue", source: std::sync::Arc::new(error) });
            }
        }
    }

    async fn take_undispatched(&self, limit: u64) -> Result<Vec<JobId>, Error> {
        let write = self.database().begin().await?;
        let taken = dispatch::take_undispatched(&*write, self.clock().now(), limit).await?;
        write.commit().await?;
        Ok(taken)
    }

    /// Makes jobs due again whose messages the broker has lost; answers how many.
    ///
    /// The broker says how many messages wait. If clearly more jobs than that were handed over a while ago and nobody has
    /// claimed them, some messages are gone; which ones cannot be known, so all of them are sent again, and a second
    /// message of a job that was claimed meanwhile is simply taken off the queue. What consumers hold at the moment is
    /// allowed for; a loss too small to tell from that shows once no message waits.
    ///
    /// # Errors
    /// If the database or the broker does not answer.
    pub async fn recover_messages(&self) -> Result<u64, Error> {
        let before = self.clock().now().minus(HANDED_OVER);
        if !self.queue().needs_relay() || self.unclaimed(before).await? == 0 {
            return Ok(0);
        }
        // Messages first, jobs after them: what is claimed in between must not look like a loss.
        let backlog = self.queue().backlog().await;
        let backlog =
            backlog.map_err(|error| Error::Unavailable { component: "queue", source: std::sync::Arc::new(error) })?;
        if backlog.ready == 0 {
            tokio::time::sleep(CLAIMING).await;
        }
        let allowed = if backlog.ready == 0 { 0 } else { backlog.ready + HELD_BY_CONSUMER * backlog.consumers };
        if self.unclaimed(before).await? <= allowed {
            return Ok(0);
        }
        let write = self.database().begin().await?;
        let again = dispatch::dispatch_again(&*write, before).await?;
        write.commit().await?;
        self.queue().wake();
        Ok(again)
    }

    async fn unclaimed(&self, before: Timestamp) -> Result<u64, Error> {
        Ok(dispatch::count_dispatched(self.database().read(), before).await?)
    }

    /// How full the queue is.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn depth(&self) -> Result<Depth, Error> {
        Ok(jobs::depth(self.database().read()).await?)
    }

    /// Sets the gauges of the queue: depth by state, and the age of the oldest waiting job in seconds.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn measure_queue(&self) -> Result<(), Error> {
        let depth = self.depth().await?;
        for (state, count) in [("queued", depth.queued), ("running", depth.running), ("dead", depth.dead)] {
            metrics::gauge!("pm_queue_jobs", "state" => state).set(count as f64);
        }
        let age = depth.oldest.map_or(Duration::ZERO, |oldest| self.clock().now().since(oldest));
        metrics::gauge!("pm_queue_oldest_job_age_seconds").set(age.as_secs_f64());
        Ok(())
    }
}
