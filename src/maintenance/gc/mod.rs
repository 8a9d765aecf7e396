//! Garbage collection: deletes blobs that no row refers to.
//!
//! Blobs are deleted in small batches, in a transaction that blocks new references. So a row never refers to a deleted
//! blob, and an interrupted collection leaves the data consistent.

mod turn;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::{TryStreamExt as _, future::try_join_all};

use crate::{
    blobs::{BlobKey, Blobs, Listed, RENEWED_AFTER},
    catalog::{Catalog, Error},
    db::{Removal, blobs::references},
    maintenance::progress::{Step, Watch},
};

/// Minimum age of a blob before it can be deleted. A younger one may belong to a job that has not yet settled.
pub const GRACE: Duration = RENEWED_AFTER.saturating_mul(2);

/// What was deleted, or would be in a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Deleted blobs.
    pub removed: u64,
    /// Total bytes of deleted blobs.
    pub bytes: u64,
    /// Unreferenced blobs younger than [`GRACE`], which were kept.
    pub young: u64,
    /// Deleted unfinished files older than [`GRACE`].
    pub unfinished: u64,
}

/// Mode of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deletes blobs.
    Remove,
    /// Deletes blobs, and pauses after each step for as long as the step took.
    Gently,
    /// Reports what would be deleted, and deletes nothing.
    DryRun,
}

/// Blobs listed per page.
const PAGE: usize = 500;
/// Blobs deleted per transaction. Workers that settle images wait for it.
const BATCH: usize = 32;
/// Pause between batches so that waiting jobs can take the lock.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// Maximum pause after a step of [`Mode::Gently`].
const MAX_REST: Duration = Duration::from_secs(2);
/// Number of attempts to begin a transaction while others hold the lock.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

impl Catalog {
    /// Deletes unreferenced blobs older than [`GRACE`]; calls `removed` with each key.
    ///
    /// It can run concurrently with everything, including other collections. Memory is bounded. After an error, the
    /// deletions so far stay.
    ///
    /// # Errors
    /// [`Error::Copying`] if a backup or a restore runs.
    pub async fn collect(
        &self,
        mode: Mode,
        watch: &mut Watch<'_>,
        removed: &mut (dyn FnMut(&BlobKey) + Send),
    ) -> Result<Collected, Error> {
        let blobs = self.blobs();
        let mut collected = Collected::default();
        let (mut done, mut batch) = (0, Vec::new());
        let mut listed = blobs.list().try_chunks(PAGE);
        let mut began = Instant::now();
        while let Some(page) = listed.try_next().await.map_err(|broken| broken.1)? {
            done += page.len() as u64;
            let keys: Vec<_> = page.iter().map(|blob| blob.key.as_str()).collect();
            let orphans = references::unreferenced(&self.database().read(), &keys).await?;
            let orphans = page.iter().filter(|blob| orphans.iter().any(|key| key == blob.key.as_str()));
            let (old, young): (Vec<_>, Vec<_>) = orphans.partition(|blob| is_old(blob));
            collected.young += young.len() as u64;
            batch.extend(old.into_iter().cloned());
            while batch.len() >= BATCH {
                let some = batch.drain(..BATCH).collect();
                self.collect_batch(some, mode, &mut collected, removed).await?;
            }
            watch(Step { name: "searching for orphans", done, total: 0 });
            rest(mode, began).await;
            began = Instant::now();
        }
        self.collect_batch(batch, mode, &mut collected, removed).await?;
        collected.unfinished = match mode {
            Mode::Remove | Mode::Gently => blobs.remove_unfinished(GRACE).await?,
            Mode::DryRun => blobs.unfinished(GRACE, 0).await?.count,
        };
        Ok(collected)
    }

    async fn collect_batch(
        &self,
        batch: Vec<Listed>,
        mode: Mode,
        collected: &mut Collected,
        removed: &mut (dyn FnMut(&BlobKey) + Send),
    ) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let gone = match mode {
            Mode::DryRun => batch,
            Mode::Remove | Mode::Gently => {
                let began = Instant::now();
                let gone = self.remove_batch(batch).await?;
                tokio::time::sleep(BATCH_PAUSE).await;
                rest(mode, began).await;
                gone
            }
        };
        for blob in &gone {
            collected.removed += 1;
            collected.bytes += blob.size;
            removed(&blob.key);
        }
        Ok(())
    }

    /// Deletes the blobs of `batch` that are still unreferenced and not renewed; returns them.
    async fn remove_batch(&self, batch: Vec<Listed>) -> Result<Vec<Listed>, Error> {
        let (catalog, batch) = (self.clone(), Arc::new(batch));
        for tries in 1.. {
            let (next, some) = (catalog.clone(), batch.clone());
            let outcome = self.to_the_end(async move {
                let Some(removal) = next.database().begin_removal().await? else { return Err(Error::Copying) };
                let gone = remove_unreferenced(next.blobs(), &removal, &some).await?;
                removal.end().await?;
                Ok(gone)
            });
            match outcome.await {
                // Another collection holds the same lock as a backup, but only briefly.
                Err(Error::Copying | Error::Unavailable { component: "database", .. }) if tries < TRIES => {}
                outcome => return outcome,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Vec::new())
    }
}

/// Pauses for as long as the step took that began at `began`.
async fn rest(mode: Mode, began: Instant) {
    if mode == Mode::Gently {
        tokio::time::sleep(began.elapsed().min(MAX_REST)).await;
    }
}

async fn remove_unreferenced(blobs: &Blobs, removal: &Removal, batch: &[Listed]) -> Result<Vec<Listed>, Error> {
    let keys: Vec<_> = batch.iter().map(|blob| blob.key.as_str()).collect();
    let orphans = references::unreferenced(&**removal, &keys).await?;
    let orphans = batch.iter().filter(|blob| orphans.iter().any(|key| key == blob.key.as_str()));
    let removals = try_join_all(orphans.map(async |blob| {
        // A job that is about to refer to the blob has renewed it.
        let Some(found) = blobs.find(&blob.key).await?.filter(is_old) else { return Ok(None) };
        blobs.delete(&found.key).await?;
        Ok::<_, Error>(Some(found))
    }));
    Ok(removals.await?.into_iter().flatten().collect())
}

/// Whether the blob can be deleted if no row refers to it.
pub(super) fn is_old(blob: &Listed) -> bool {
    SystemTime::now().duration_since(blob.modified).unwrap_or_default() > GRACE
}
