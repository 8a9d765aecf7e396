//! Tracks uploaded files until a row refers to them.
//!
//! Equal files share a blob. The blob of a rejected upload is deleted only if no other upload uses it and no row refers
//! to it. This module counts the uploads of this process, and checks rows while no transaction can pin a blob. If an
//! upload to another process finds the blob just before the deletion, that process answers 503, and a retry succeeds.

use std::{collections::HashMap, time::Duration};

use futures_util::future::try_join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    blobs::BlobKey,
    catalog::{Catalog, Error},
    db::blobs::references,
};

/// Number of attempts to delete blobs while another transaction holds the lock.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// Blobs that uploads of this process have stored and that no image refers to yet.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Intake {
    blobs: Mutex<HashMap<BlobKey, BlobUse>>,
    /// Notifies uploads that wait for the end of a deletion.
    removed: Notify,
}

#[derive(Debug, Default)]
struct BlobUse {
    uploads: usize,
    /// Whether these uploads created the blob.
    is_new: bool,
    is_being_removed: bool,
}

impl Intake {
    /// Registers an upload of this blob; waits while the blob is being deleted.
    pub(in crate::catalog) async fn begin(&self, key: &BlobKey) {
        loop {
            // Created before the check, so that the end of a deletion between the two is not missed.
            let removed = self.removed.notified();
            if self.count(key) {
                return;
            }
            removed.await;
        }
    }

    fn count(&self, key: &BlobKey) -> bool {
        let mut blobs = self.lock();
        let entry = blobs.entry(key.clone()).or_default();
        if !entry.is_being_removed {
            entry.uploads += 1;
        }
        !entry.is_being_removed
    }

    /// Records that the blob did not exist before.
    pub(super) fn note_new(&self, key: &BlobKey) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.is_new = true;
        }
    }

    /// Ends an upload whose blobs are now referred to by rows.
    pub(in crate::catalog) fn release(&self, keys: &[BlobKey]) {
        let mut blobs = self.lock();
        for key in keys {
            if end(&mut blobs, key).is_some() {
                blobs.remove(key);
            }
        }
    }

    /// Ends a rejected upload; returns its blobs that no other upload uses.
    ///
    /// Uploads of these blobs wait until [`removed`](Self::removed) is called.
    fn refuse(&self, keys: &[BlobKey]) -> Vec<BlobKey> {
        let mut blobs = self.lock();
        let mut left = Vec::new();
        for key in keys {
            match end(&mut blobs, key) {
                Some(entry) if entry.is_new => {
                    entry.is_being_removed = true;
                    left.push(key.clone());
                }
                Some(_) => {
                    blobs.remove(key);
                }
                None => {}
            }
        }
        left
    }

    fn removed(&self, keys: &[BlobKey]) {
        let mut blobs = self.lock();
        for key in keys {
            blobs.remove(key);
        }
        drop(blobs);
        self.removed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlobKey, BlobUse>> {
        self.blobs.lock()
    }
}

/// Unregisters an upload; returns the blob's entry if it was the last one.
fn end<'a>(blobs: &'a mut HashMap<BlobKey, BlobUse>, key: &BlobKey) -> Option<&'a mut BlobUse> {
    let entry = blobs.get_mut(key)?;
    entry.uploads = entry.uploads.saturating_sub(1);
    Some(entry).filter(|entry| entry.uploads == 0)
}

impl Catalog {
    /// Deletes the blobs that a rejected upload created and that nothing else uses.
    ///
    /// `pm gc` deletes later what cannot be deleted now.
    pub(in crate::catalog) async fn discard(&self, keys: Vec<BlobKey>) {
        let left = self.0.intake.refuse(&keys);
        if left.is_empty() {
            return;
        }
        for _ in 0..TRIES {
            match self.remove_unreferenced(&left).await {
                Ok(()) => break,
                Err(error) => tracing::debug!(%error, "the files of a rejected upload could not be deleted"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.0.intake.removed(&left);
    }

    async fn remove_unreferenced(&self, keys: &[BlobKey]) -> Result<(), Error> {
        let Some(removal) = self.database().begin_removal().await? else { return Err(Error::Copying) };
        let texts: Vec<_> = keys.iter().map(BlobKey::as_str).collect();
        let orphans = references::unreferenced(&*removal, &texts).await?;
        let orphans = keys.iter().filter(|key| orphans.iter().any(|orphan| orphan == key.as_str()));
        try_join_all(orphans.map(|key| self.0.engines.blobs.delete(key))).await?;
        Ok(removal.end().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> BlobKey {
        BlobKey::for_bytes(text.as_bytes(), "png").expect("a known extension").as_original()
    }

    #[tokio::test]
    async fn a_blob_is_deleted_when_its_last_upload_is_rejected() {
        let (intake, blob) = (Intake::default(), key("a"));
        intake.begin(&blob).await;
        intake.note_new(&blob);
        intake.begin(&blob).await;
        assert!(intake.refuse(std::slice::from_ref(&blob)).is_empty(), "another upload has it");
        assert_eq!(intake.refuse(std::slice::from_ref(&blob)).as_slice(), std::slice::from_ref(&blob));
        let waits = tokio::time::timeout(Duration::from_millis(20), intake.begin(&blob)).await;
        assert!(waits.is_err(), "it is being deleted");
        let (begun, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), intake.begin(&blob)), async {
            tokio::task::yield_now().await;
            intake.removed(std::slice::from_ref(&blob));
        });
        assert!(begun.is_ok(), "the deletion has ended");
    }

    #[tokio::test]
    async fn a_blob_that_existed_before_or_is_referenced_stays() {
        let (intake, old, used) = (Intake::default(), key("old"), key("used"));
        intake.begin(&old).await;
        assert!(intake.refuse(&[old]).is_empty());
        intake.begin(&used).await;
        intake.note_new(&used);
        intake.release(std::slice::from_ref(&used));
        assert!(intake.refuse(&[used]).is_empty());
        assert!(intake.lock().is_empty());
    }
}
