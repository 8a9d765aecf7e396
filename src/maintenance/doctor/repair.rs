//! Repairs violations of invariants without losing intact data.
//!
//! Repairs can run while the system is in use, and can be repeated.

use std::collections::BTreeSet;

use crate::{
    blobs::{BlobKey, Blobs, State},
    catalog::{Catalog, Error},
    db::{
        blobs::losses,
        maintenance::invariants,
        products::{self, images},
    },
    domain::{JobPayload, ProductId},
    maintenance::{Finding, GRACE, Invariant, Mode, losses::GiveUp, progress::Watch},
};

/// One repaired or unrepaired violation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Repair {
    /// The id or key.
    pub what: String,
    /// What was done, or why nothing was done.
    pub how: &'static str,
}

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Repaired violations.
    pub done: Vec<Repair>,
    /// Violations that could not be repaired.
    pub left: Vec<Repair>,
}

/// Images or keys per transaction.
const BATCH: usize = 100;

impl Repaired {
    fn done(&mut self, what: impl ToString, how: &'static str) {
        self.done.push(Repair { what: what.to_string(), how });
    }

    fn left(&mut self, what: impl ToString, how: &'static str) {
        self.left.push(Repair { what: what.to_string(), how });
    }
}

impl Catalog {
    /// Repairs the violations of `finding`; `copies` are blobs of a backup.
    ///
    /// No blob is deleted while blobs are repaired. After an error, the repairs so far stay.
    pub async fn repair(
        &self,
        finding: &Finding,
        copies: Option<&Blobs>,
        watch: &mut Watch<'_>,
    ) -> Result<Repaired, Error> {
        let mut repaired = Repaired::default();
        match finding.invariant {
            Invariant::Images => self.repair_images(&finding.all, &mut repaired).await?,
            Invariant::Blobs => self.repair_blobs(&finding.all, copies, &mut repaired).await?,
            Invariant::Sources => self.repair_sources(&finding.all, copies, &mut repaired).await?,
            Invariant::Orphans => {
                self.collect(Mode::Remove, watch, &mut |key| repaired.done(key, "deleted")).await?;
            }
            Invariant::Unfinished => {
                let removed = self.blobs().remove_unfinished(GRACE).await?;
                repaired.done(format_args!("{removed} files"), "deleted");
            }
            Invariant::Outbox => while self.dispatch_due().await? > 0 {},
            Invariant::Invalidations => {
                if !self.flush_invalidations().await? {
                    let unavailable = std::io::Error::other("invalidations could not be sent to the cache");
                    return Err(Error::unavailable("cache", unavailable));
                }
            }
            Invariant::Leases => {
                let recovered = self.take_lapsed_leases(finding.broken).await?;
                repaired.done(format_args!("{recovered} leases"), "taken from dead workers");
            }
            Invariant::Entries => {
                let ids: Vec<_> = finding.all.iter().filter_map(|id| id.parse().ok()).map(ProductId).collect();
                self.cache().invalidate(&ids).await.map_err(|error| Error::unavailable("cache", error))?;
                ids.iter().for_each(|id| repaired.done(id, "deleted from the cache"));
            }
        }
        let how = match finding.invariant {
            Invariant::Outbox => "sent to the broker",
            Invariant::Invalidations => "deleted from the cache",
            _ => return Ok(repaired),
        };
        finding.all.iter().for_each(|id| repaired.done(id, how));
        Ok(repaired)
    }

    async fn repair_images(&self, ids: &[String], repaired: &mut Repaired) -> Result<(), Error> {
        let ids: Vec<i64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        for some in ids.chunks(BATCH) {
            let (catalog, some) = (self.clone(), some.to_vec());
            let done = self.to_the_end(async move { catalog.repair_some_images(&some).await }).await?;
            repaired.done.extend(done);
        }
        self.queue().wake();
        Ok(())
    }

    /// Repairs images and their jobs.
    ///
    /// Ends jobs of earlier generations. A final image with a live job becomes pending. An unfinished image without a
    /// job is queued again.
    async fn repair_some_images(&self, ids: &[i64]) -> Result<Vec<Repair>, Error> {
        let (now, mut repaired) = (self.now().await?, Repaired::default());
        let write = self.database().begin().await?;
        // Jobs before products, as workers lock them.
        let before = losses::images(&*write, ids).await?;
        for image in &before {
            if losses::end_other_jobs(&*write, image, now).await? > 0 {
                repaired.done(image.id, "jobs of earlier generations were ended");
            }
        }
        let changed: BTreeSet<_> = before.iter().map(|image| image.product_id).collect();
        let changed: Vec<_> = changed.into_iter().collect();
        products::lock(&*write, &changed).await?;
        let odd = invariants::images_among(&*write, ids).await?;
        for jobs in odd.iter().filter(|jobs| !jobs.is_sound()) {
            let Some(image) = losses::images(&*write, &[jobs.id]).await?.pop() else { continue };
            if jobs.is_final() {
                images::set_pending(&*write, image.id, None, now).await?;
                repaired.done(image.id, "set to pending because its job is queued");
            } else if !jobs.has_its_job() {
                self.begin_again(&write, &[image], &JobPayload::process_image(None), None, now).await?;
                repaired.done(image.id, "queued again");
            }
        }
        self.announce(&write).await?;
        self.commit_change(write, &changed, now).await?;
        Ok(repaired.done)
    }

    async fn repair_blobs(
        &self,
        keys: &[String],
        copies: Option<&Blobs>,
        repaired: &mut Repaired,
    ) -> Result<(), Error> {
        let hold = self.database().hold_blobs().await?;
        let mut lost = Vec::new();
        for key in keys {
            if self.copy_back(key, copies).await? {
                repaired.done(key, "copied from the backup");
            } else {
                lost.push(key.clone());
            }
        }
        for some in lost.chunks(BATCH) {
            let (catalog, some) = (self.clone(), some.to_vec());
            self.to_the_end(async move { catalog.make_blobs_again(&some).await }).await?;
        }
        lost.iter().for_each(|key| repaired.done(key, "its images were queued again; variants are made on demand"));
        self.queue().wake();
        // A release fails only if the connection broke, which releases the lock as well.
        let _ = hold.release().await;
        Ok(())
    }

    async fn make_blobs_again(&self, keys: &[String]) -> Result<(), Error> {
        let now = self.now().await?;
        let write = self.database().begin().await?;
        self.lock_products_of(&write, keys).await?;
        let lost = self.give_up(&write, keys, GiveUp::Made, now).await?;
        self.commit_change(write, &lost.products(), now).await
    }

    async fn repair_sources(
        &self,
        keys: &[String],
        copies: Option<&Blobs>,
        repaired: &mut Repaired,
    ) -> Result<(), Error> {
        let hold = self.database().hold_blobs().await?;
        for key in keys {
            if self.copy_back(key, copies).await? {
                repaired.done(key, "copied from the backup");
            } else {
                repaired.left(key, "no intact copy found: pass --from DIR with a backup, or upload the file again");
            }
        }
        let _ = hold.release().await;
        Ok(())
    }

    /// Copies a blob from the backup to the store; returns whether an intact copy existed.
    async fn copy_back(&self, key: &str, copies: Option<&Blobs>) -> Result<bool, Error> {
        let (Some(copies), Some(key)) = (copies, BlobKey::parse(key)) else { return Ok(false) };
        Ok(matches!(copies.copy_to(&key, self.blobs()).await?, State::Whole { .. }))
    }
}
