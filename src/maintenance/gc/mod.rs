//! Removing blobs that nothing refers to. A few at a time, in a transaction that keeps everybody from referring to any; so a
//! job never refers to a blob that is gone, and a removal that dies half-way has done nothing wrong.

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

/// A blob that nothing refers to is left alone until it is older than this: a job may have stored it and be about to refer to
/// it.
pub const GRACE: Duration = RENEWED_AFTER.saturating_mul(2);

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that nothing referred to.
    pub removed: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// Blobs that nothing refers to, but that are younger than [`GRACE`].
    pub young: u64,
    /// Unfinished files that were older than that.
    pub unfinished: u64,
}

/// What a removal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Remove.
    Remove,
    /// Remove, and rest for as long as each step of it took, so that others are hardly held up.
    Gently,
    /// Say what would be removed, and remove nothing.
    DryRun,
}

/// Blobs that are listed together.
const PAGE: usize = 500;
/// Blobs that are removed in one transaction; everybody who settles a picture waits for it.
const BATCH: usize = 32;
/// Who settles a picture gets this between two transactions.
const BREATH: Duration = Duration::from_millis(10);
/// The longest rest after a step of [`Mode::Gently`].
const MAX_REST: Duration = Duration::from_secs(2);
/// A transaction that did not come about, for another one removes or much is being settled, is tried again so often.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

impl Catalog {
    /// Removes what nothing refers to and is older than [`GRACE`]; `removed` is told each key. It may run beside everything
    /// else, and beside itself; memory stays bounded.
    ///
    /// # Errors
    /// [`Error::Copying`] if a backup or a restore runs; by the component that does not answer: then what was removed so far
    /// stays removed.
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
            watch(Step { name: "looking for orphans", done, total: 0 });
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
                tokio::time::sleep(BREATH).await;
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

    /// Removes those of `batch` that nothing refers to and that nobody has put again; answers which.
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
                // Another removal holds the same lock as a backup for a moment.
                Err(Error::Copying | Error::Unavailable { component: "database", .. }) if tries < TRIES => {}
                outcome => return outcome,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Vec::new())
    }
}

/// Rests for as long as the step took that began at `began`.
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
        // A job that is about to refer to it has put it again.
        let Some(found) = blobs.find(&blob.key).await?.filter(is_old) else { return Ok(None) };
        blobs.delete(&found.key).await?;
        Ok::<_, Error>(Some(found))
    }));
    Ok(removals.await?.into_iter().flatten().collect())
}

/// Whether the blob may be removed if nothing refers to it.
pub(super) fn is_old(blob: &Listed) -> bool {
    SystemTime::now().duration_since(blob.modified).unwrap_or_default() > GRACE
}
