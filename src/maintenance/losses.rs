//! Makes the catalog consistent after blobs were lost, and queues images again where possible.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Write,
        blobs::losses,
        jobs::reruns::{self, Selected},
        products::{self, images, touch},
    },
    domain::{ImageId, JobPayload, ProductId},
};

/// Which references to lost blobs are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUp {
    /// References of renditions and variants, which can be made again.
    Made,
    /// Also references to uploaded files, because no other copy exists.
    Sources,
}

/// Images affected by lost blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Images that were queued again.
    pub queued: BTreeSet<ImageId>,
    /// Images whose largest rendition replaced their uploaded file.
    pub replaced: BTreeSet<ImageId>,
    /// Images that failed because no file of them is left.
    pub failed: BTreeSet<ImageId>,
    products: BTreeSet<ProductId>,
}

/// Keys or images per statement.
const BATCH: usize = 200;

impl Losses {
    /// Returns the changed products.
    pub(super) fn products(&self) -> Vec<ProductId> {
        self.products.iter().copied().collect()
    }
}

impl Catalog {
    /// Removes references to lost blobs, and queues the affected images again.
    ///
    /// Their products must be locked, unless no other process uses the database.
    pub(super) async fn give_up(
        &self,
        write: &Write,
        keys: &[String],
        what: GiveUp,
        now: Timestamp,
    ) -> Result<Losses, Error> {
        let mut lost = Losses::default();
        let mut lacking: BTreeMap<ImageId, Selected> = BTreeMap::new();
        for some in keys.chunks(BATCH) {
            let some: Vec<_> = some.iter().map(String::as_str).collect();
            losses::delete_variants(&**write, &some).await?;
            for images in losses::images_with_renditions(&**write, &some).await?.chunks(BATCH) {
                losses::delete_renditions(&**write, images, &some).await?;
                lacking.extend(images.iter().map(|image| (image.id, *image)));
            }
        }
        if what == GiveUp::Sources {
            for some in keys.chunks(BATCH) {
                let some: Vec<_> = some.iter().map(String::as_str).collect();
                for image in losses::images_with_sources(&**write, &some).await? {
                    replace_source(write, &image, &mut lost, now).await?;
                }
            }
        }
        let again: Vec<_> = lacking.into_values().filter(|image| !lost.failed.contains(&image.id)).collect();
        self.make_again(write, &again, &mut lost, now).await?;
        Ok(lost)
    }

    /// Queues images that have neither a job nor a final status, after rows were lost.
    pub(super) async fn queue_unfinishable(
        &self,
        write: &Write,
        lost: &mut Losses,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let page = losses::unfinishable(&**write, after, BATCH as u64).await?;
            let Some(last) = page.last() else { break };
            after = last.id.0;
            self.begin_again(write, &page, &JobPayload::process_image(None), None, now).await?;
            lost.queued.extend(page.iter().map(|image| image.id));
            lost.products.extend(page.iter().map(|image| image.product_id));
        }
        Ok(())
    }

    /// Updates versions and statuses of products after changes of their images.
    pub(super) async fn follow_images(&self, write: &Write, lost: &Losses, now: Timestamp) -> Result<(), Error> {
        touch::touch(&**write, &lost.products(), now).await?;
        losses::correct_statuses(&**write).await?;
        Ok(())
    }

    /// Queues images with a final status; makes live jobs of the others render all presets.
    async fn make_again(
        &self,
        write: &Write,
        images: &[Selected],
        lost: &mut Losses,
        now: Timestamp,
    ) -> Result<(), Error> {
        let payload = JobPayload::process_image(None);
        let text = serde_json::to_string(&payload).map_err(Error::internal)?;
        for some in images.chunks(BATCH) {
            let at_rest = reruns::still_at_rest(&**write, some).await?;
            self.begin_again(write, &at_rest, &payload, None, now).await?;
            for image in some.iter().filter(|image| !at_rest.contains(image)) {
                losses::widen_jobs(&**write, image.id, &text).await?;
            }
            lost.queued.extend(some.iter().map(|image| image.id));
            lost.products.extend(some.iter().map(|image| image.product_id));
        }
        Ok(())
    }

    /// Locks the products of the images with these lost blobs.
    pub(super) async fn lock_products_of(&self, write: &Write, keys: &[String]) -> Result<(), Error> {
        let mut ids = BTreeSet::new();
        for some in keys.chunks(BATCH) {
            let some: Vec<_> = some.iter().map(String::as_str).collect();
            let images = losses::images_with_renditions(&**write, &some).await?;
            ids.extend(images.iter().map(|image| image.product_id));
        }
        Ok(products::lock(&**write, &ids.into_iter().collect::<Vec<_>>()).await?)
    }
}

/// Replaces a lost uploaded file by the largest rendition; without one, the image fails.
async fn replace_source(write: &Write, image: &Selected, lost: &mut Losses, now: Timestamp) -> Result<(), Error> {
    lost.products.insert(image.product_id);
    if let Some(key) = losses::largest_rendition(&**write, image.id).await? {
        losses::set_source(&**write, image.id, &key).await?;
        lost.replaced.insert(image.id);
        return Ok(());
    }
    let error = (ErrorCode::SourceNotFound, "the uploaded file is lost: the backup has no intact copy of it");
    images::set_failed(&**write, image.id, error, now).await?;
    losses::mark_jobs_dead(&**write, image.id, error, now).await?;
    lost.failed.insert(image.id);
    Ok(())
}
