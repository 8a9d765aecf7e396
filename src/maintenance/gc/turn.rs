//! Removing orphaned blobs without being asked: in one process at a time over the whole installation, once in each period.

use std::time::{Duration, Instant};

use crate::{
    blobs::BlobKey,
    catalog::{Catalog, Error},
    db::blobs::gc_turn,
    maintenance::{Collected, Mode, Step},
};

/// A turn is lengthened this often.
const EXTEND_EACH: Duration = Duration::from_secs(20);

impl Catalog {
    /// Removes orphaned blobs if no process has done so for `every`, and none does so now. Returns what was removed; `None`
    /// if no run was due here.
    ///
    /// # Errors
    /// As for [`collect`](Self::collect). Then all processes wait for five minutes before one tries again.
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
        let taken = gc_turn::take(&*write, token, every, write.now().await?).await?;
        write.commit().await?;
        Ok(taken)
    }

    async fn end_gc_turn(&self, token: &str, well: bool) -> Result<(), Error> {
        let write = self.database().begin().await?;
        gc_turn::end(&*write, token, well, write.now().await?).await?;
        Ok(write.commit().await?)
    }

    /// Lengthens the turn until another process may have it.
    async fn gc_turn_lost(&self, token: &str) {
        let mut extended = Instant::now();
        while extended.elapsed() < gc_turn::LEASE {
            tokio::time::sleep(EXTEND_EACH).await;
            match self.extend_gc_turn(token).await {
                Ok(true) => extended = Instant::now(),
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the turn at removing blobs cannot be lengthened for now"),
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
