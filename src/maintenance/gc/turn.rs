//! Periodic garbage collection, in one process at a time per installation.

use std::time::{Duration, Instant};

use crate::{
    blobs::BlobKey,
    catalog::{Catalog, Error},
    db::blobs::gc_turn,
    maintenance::{Collected, Mode, Step},
};

/// Interval between extensions of the lease.
const EXTEND_INTERVAL: Duration = Duration::from_secs(20);

impl Catalog {
    /// Deletes orphaned blobs if no process has done so for `every` and none does so now.
    ///
    /// Returns `None` if no collection was due.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect). All processes then wait five minutes before the next attempt.
    pub async fn collect_if_due(&self, every: Duration) -> Result<Option<Collected>, Error> {
        let read = self.database().read();
        let now = self.now().await?;
        if gc_turn::last_end(&read).await?.is_none() {
            let write = self.database().begin().await?;
            gc_turn::begin_counting(&*write, now).await?;
            write.commit().await?;
            return Ok(None);
        }
        if !gc_turn::is_due(&read, every, now).await? {
            return Ok(None);
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        if !self.take_gc_turn(&token, every).await? {
            return Ok(None);
        }
        let (mut watch, mut removed) = (|_: Step| {}, |_: &BlobKey| {});
        let outcome = tokio::select! {
            outcome = self.collect(Mode::Gently, &mut watch, &mut removed) => outcome,
            () = self.gc_turn_lost(&token) => Err(Error::LeaseLost),
        };
        let ended = self.end_gc_turn(&token, outcome.is_ok()).await;
        let collected = outcome?;
        ended?;
        Ok(Some(collected))
    }

    async fn take_gc_turn(&self, token: &str, every: Duration) -> Result<bool, Error> {
        let write = self.database().begin().await?;
        let granted = gc_turn::take(&*write, token, every, write.now().await?).await?;
        write.commit().await?;
        Ok(granted)
    }

    async fn end_gc_turn(&self, token: &str, well: bool) -> Result<(), Error> {
        let write = self.database().begin().await?;
        gc_turn::end(&*write, token, well, write.now().await?).await?;
        Ok(write.commit().await?)
    }

    /// Extends the lease; returns when it may be lost.
    async fn gc_turn_lost(&self, token: &str) {
        let mut extended = Instant::now();
        while extended.elapsed() < gc_turn::LEASE {
            tokio::time::sleep(EXTEND_INTERVAL).await;
            match self.extend_gc_turn(token).await {
                Ok(true) => extended = Instant::now(),
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the lease of garbage collection could not be extended"),
            }
        }
    }

    async fn extend_gc_turn(&self, token: &str) -> Result<bool, Error> {
        let write = self.database().begin().await?;
        let is_ours = gc_turn::extend(&*write, token, write.now().await?).await?;
        write.commit().await?;
        Ok(is_ours)
    }
}
