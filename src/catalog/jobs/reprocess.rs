//! Running pictures again, batch by batch, so that a catalogue of any size costs the same memory.

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

/// Which pictures at rest are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Those that failed.
    #[default]
    Failed,
    /// Those that are ready.
    Ready,
    /// Both.
    All,
}

/// Which pictures are run again, and what of them is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these products'; all if empty.
    pub products: Vec<ProductId>,
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// By their status. Pictures that are on their way already are left alone.
    pub status: Which,
    /// Make only these presets and keep the others.
    pub presets: Option<Vec<String>>,
    /// Only pictures that were last changed at or after this.
    pub since: Option<Timestamp>,
}

/// Pictures that were queued again in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The pictures by id; none means that all are done.
    pub images: Vec<ImageId>,
    /// Where the next batch begins.
    pub last: Option<ImageId>,
}

/// How far a number of pictures are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// On their way.
    pub pending: u64,
    /// Done well.
    pub ready: u64,
    /// Done badly.
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
    /// How many pictures a selection has now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn count_reprocess(&self, selection: &Selection) -> Result<u64, Error> {
        Ok(reruns::count(&self.database().read(), &selection.images()).await?)
    }

    /// Queues up to `limit` selected pictures after `after` again.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a preset is unknown, [`Error::Unavailable`] by the database.
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
        // Somebody else may have queued some of them before the products were held.
        let still = reruns::still_at_rest(&*write, &chosen).await?;
        let payload = JobPayload::process_image(selection.presets.clone());
        self.begin_again(&write, &still, &payload, request_id, now).await?;
        let images: Vec<_> = still.iter().map(|image| image.id).collect();
        self.commit_change(write, &ids, now).await?;
        self.queue().wake();
        Ok(Batch { images, last: Some(last) })
    }

    /// Begins another run of pictures at rest whose products are held.
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
                // Its product is held, so it is there.
                let (user_id, source) = origins.get(&image.id)?.clone();
                let (image_id, generation) = (image.id, image.generation + 1);
                Some(NewJob { image_id, generation, payload, request_id, user_id, host: source.host() })
            })
            .collect();
        jobs::insert_all(&**write, &queued, now).await?;
        self.announce(write).await
    }

    /// How far these pictures are.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
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
                Err(Invalid::field("preset", format!("`{name}` is not known; known are {}", known.join(", "))).into())
            }
            None => Ok(()),
        }
    }
}
