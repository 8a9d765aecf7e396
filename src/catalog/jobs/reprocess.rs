//! Reprocesses images in batches, with memory independent of the catalog's size.

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    db::{
        Write,
        jobs::{self, NewJob, dead_letters, reruns},
        products::{self, images},
    },
    domain::{ImageId, ImageStatus, Invalid, JobPayload, ProductId, UserId},
};

/// Selects images by final status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Failed images.
    #[default]
    Failed,
    /// Ready images.
    Ready,
    /// Failed and ready images.
    All,
}

/// Selects images to reprocess, and their presets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only images of these products; all if empty.
    pub products: Vec<ProductId>,
    /// Only images of this user.
    pub user_id: Option<UserId>,
    /// Only images with this status. Pending and processing images are never selected.
    pub status: Which,
    /// Render only these presets and keep the other renditions.
    pub presets: Option<Vec<String>>,
    /// Only images last changed at or after this time.
    pub since: Option<Timestamp>,
}

/// Images that were queued again in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The queued images by id; empty after the last batch.
    pub images: Vec<ImageId>,
    /// Cursor of the next batch.
    pub last: Option<ImageId>,
}

/// Numbers of images by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pending or processing.
    pub pending: u64,
    /// Ready.
    pub ready: u64,
    /// Failed.
    pub failed: u64,
}

impl Selection {
    fn images(&self) -> reruns::Selection {
        let statuses = match self.status {
            Which::Failed => vec![ImageStatus::Failed],
            Which::Ready => vec![ImageStatus::Ready],
            Which::All => vec![ImageStatus::Failed, ImageStatus::Ready],
        };
        reruns::Selection {
            products: self.products.clone(),
            user_id: self.user_id.clone(),
            statuses,
            since: self.since,
        }
    }
}

impl Catalog {
    /// Returns the number of selected images.
    pub async fn count_reprocess(&self, selection: &Selection) -> Result<u64, Error> {
        Ok(reruns::count(&self.database().read(), &selection.images()).await?)
    }

    /// Queues up to `limit` selected images after `after` again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a preset is unknown.
    pub async fn reprocess(
        &self,
        selection: &Selection,
        after: Option<ImageId>,
        limit: u64,
        request_id: Option<&str>,
    ) -> Result<Batch, Error> {
        self.check_presets(selection.presets.as_deref())?;
        let (catalog, selection) = (self.clone(), selection.clone());
        let request_id = request_id.map(str::to_owned);
        self.to_the_end(async move { catalog.reprocess_now(&selection, after, limit, request_id.as_deref()).await })
            .await
    }

    async fn reprocess_now(
        &self,
        selection: &Selection,
        after: Option<ImageId>,
        limit: u64,
        request_id: Option<&str>,
    ) -> Result<Batch, Error> {
        let write = self.database().begin().await?;
        let now = write.now().await?;
        let chosen = reruns::select(&*write, &selection.images(), after, limit).await?;
        let Some(last) = chosen.last().map(|image| image.id) else {
            return Ok(Batch::default());
        };
        let mut ids: Vec<_> = chosen.iter().map(|image| image.product_id).collect();
        ids.sort_unstable();
        ids.dedup();
        products::lock(&*write, &ids).await?;
        // Another transaction may have queued some of them before the products were locked.
        let still = reruns::still_at_rest(&*write, &chosen).await?;
        let payload = JobPayload::process_image(selection.presets.clone());
        self.begin_again(&write, &still, &payload, request_id, now).await?;
        let images: Vec<_> = still.iter().map(|image| image.id).collect();
        self.commit_change(write, &ids, now).await?;
        self.queue().wake();
        Ok(Batch { images, last: Some(last) })
    }

    /// Begins a new generation of images in a final status, whose products are locked.
    pub(crate) async fn begin_again(
        &self,
        write: &Write,
        still: &[reruns::Selected],
        payload: &JobPayload,
        request_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        reruns::begin_run(&**write, still, now).await?;
        let images: Vec<_> = still.iter().map(|image| image.id).collect();
        dead_letters::end(&**write, &images, now).await?;
        let origins = reruns::origins(&**write, &images).await?;
        let queued: Vec<_> = still
            .iter()
            .filter_map(|image| {
                // Its product is locked, so the image exists.
                let (user_id, source) = origins.get(&image.id)?.clone();
                let (image_id, generation) = (image.id, image.generation + 1);
                Some(NewJob { image_id, generation, payload, request_id, user_id, host: source.host() })
            })
            .collect();
        jobs::insert_all(&**write, &queued, now).await?;
        self.announce(write).await
    }

    /// Counts these images by status.
    pub async fn progress(&self, images: &[ImageId]) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        for status in images::statuses(&self.database().read(), images).await? {
            match status {
                ImageStatus::Pending | ImageStatus::Processing => progress.pending += 1,
                ImageStatus::Ready => progress.ready += 1,
                ImageStatus::Failed => progress.failed += 1,
            }
        }
        Ok(progress)
    }

    fn check_presets(&self, presets: Option<&[String]>) -> Result<(), Error> {
        let known: Vec<_> = self.presets().iter().map(|preset| preset.name.as_str()).collect();
        match presets.unwrap_or_default().iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                Err(Invalid::field("preset", format!("`{name}` is unknown; presets: {}", known.join(", "))).into())
            }
            None => Ok(()),
        }
    }
}
