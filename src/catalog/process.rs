//! What a worker does to the truth: claim a job, lengthen its lease, store or report what became of it. Every write is
//! fenced by the lease: a worker that was thought dead changes nothing any more.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    code::ErrorCode,
    db::{
        Write, images,
        jobs::{self, LEASE},
        products, renditions,
    },
    domain::{Facts, ImageSource, Job, JobId, ProductId, Rendition},
};

/// A job in a worker's hands.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job with its lease.
    pub job: Job,
    /// The product of the picture.
    pub product_id: ProductId,
    /// Where the picture comes from.
    pub source: ImageSource,
}

/// What was made of a picture.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is known of it.
    pub facts: Facts,
    /// What clients should know.
    pub warnings: Vec<String>,
    /// What is stored now.
    pub renditions: Vec<Rendition>,
    /// The presets that were made; all if absent.
    pub presets: Option<Vec<String>>,
}

/// After this many dead workers a picture is given up.
const MOST_CRASHES: i32 = 3;

impl Catalog {
    /// Claims the job that has been due longest.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn claim_next(&self) -> Result<Option<Claimed>, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let (token, now) = (new_token(), catalog.clock().now());
            let write = catalog.database().begin().await?;
            let job = jobs::claim_next(&*write, &token, now.plus(LEASE), now).await?;
            catalog.take_up(write, job, now).await
        })
        .await
    }

    /// Claims this job, if it is due and nobody has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn claim(&self, id: JobId) -> Result<Option<Claimed>, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let (token, now) = (new_token(), catalog.clock().now());
            let write = catalog.database().begin().await?;
            let job = jobs::claim(&*write, id, &token, now.plus(LEASE), now).await?;
            catalog.take_up(write, job, now).await
        })
        .await
    }

    async fn take_up(&self, write: Write, job: Option<Job>, now: Timestamp) -> Result<Option<Claimed>, Error> {
        let Some(job) = job else {
            return Ok(None);
        };
        let Some(work) = images::work(&*write, job.image_id).await? else {
            return Ok(None);
        };
        products::lock(&*write, &[work.product_id]).await?;
        images::set_processing(&*write, job.image_id, job.attempt, now).await?;
        self.commit_change(write, &[work.product_id], now).await?;
        Ok(Some(Claimed { job, product_id: work.product_id, source: work.source }))
    }

    /// Says that the worker is alive; `false` if the job is another's by now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn extend_lease(&self, job: &Job) -> Result<bool, Error> {
        let write = self.database().begin().await?;
        let held = jobs::extend_lease(&*write, job, self.clock().now().plus(LEASE)).await?;
        write.commit().await?;
        Ok(held)
    }

    /// Stores what was made of a picture: renditions, status, the job's end and the product's new version at once.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now: then nothing was stored.
    pub async fn finish_image(&self, claimed: &Claimed, outcome: Outcome) -> Result<(), Error> {
        let (catalog, claimed) = (self.clone(), claimed.clone());
        self.to_the_end(async move {
            let now = catalog.clock().now();
            let write = catalog.database().begin().await?;
            held(jobs::finish(&*write, &claimed.job, now).await?)?;
            products::lock(&*write, &[claimed.product_id]).await?;
            let image_id = claimed.job.image_id;
            images::set_ready(&*write, image_id, &outcome.facts, &outcome.warnings, now).await?;
            renditions::replace(&*write, image_id, &outcome.renditions, outcome.presets.as_deref()).await?;
            catalog.commit_change(write, &[claimed.product_id], now).await
        })
        .await
    }

    /// Reports that a picture cannot be had.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now.
    pub async fn fail_image(&self, claimed: &Claimed, code: ErrorCode, message: &str) -> Result<(), Error> {
        let (catalog, claimed, message) = (self.clone(), claimed.clone(), message.to_owned());
        self.to_the_end(async move {
            let now = catalog.clock().now();
            let write = catalog.database().begin().await?;
            held(jobs::bury(&*write, &claimed.job, (code, &message), now).await?)?;
            products::lock(&*write, &[claimed.product_id]).await?;
            images::set_failed(&*write, claimed.job.image_id, (code, &message), now).await?;
            catalog.commit_change(write, &[claimed.product_id], now).await
        })
        .await
    }

    /// Puts a job back for another attempt after `delay`.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now.
    pub async fn retry_image(
        &self,
        claimed: &Claimed,
        code: ErrorCode,
        message: &str,
        delay: Duration,
    ) -> Result<(), Error> {
        let (catalog, claimed, message) = (self.clone(), claimed.clone(), message.to_owned());
        self.to_the_end(async move {
            let now = catalog.clock().now();
            let write = catalog.database().begin().await?;
            held(jobs::retry(&*write, &claimed.job, (code, &message), now.plus(delay), now).await?)?;
            products::lock(&*write, &[claimed.product_id]).await?;
            images::set_pending(&*write, claimed.job.image_id, Some((code, &message)), now).await?;
            catalog.commit_change(write, &[claimed.product_id], now).await
        })
        .await
    }

    /// Gives a job back unfinished; the attempt does not count.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now.
    pub async fn release(&self, claimed: &Claimed) -> Result<(), Error> {
        let (catalog, claimed) = (self.clone(), claimed.clone());
        self.to_the_end(async move {
            let now = catalog.clock().now();
            let write = catalog.database().begin().await?;
            held(jobs::release(&*write, &claimed.job, now).await?)?;
            products::lock(&*write, &[claimed.product_id]).await?;
            images::set_pending(&*write, claimed.job.image_id, None, now).await?;
            catalog.commit_change(write, &[claimed.product_id], now).await?;
            catalog.queue().wake();
            Ok(())
        })
        .await
    }

    /// Takes jobs from workers that died: they are due again at once, or given up if workers die over them again and
    /// again. Answers how many there were.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn recover_expired(&self) -> Result<usize, Error> {
        const AT_ONCE: u64 = 100;
        let now = self.clock().now();
        let write = self.database().begin().await?;
        let expired = jobs::take_expired(&*write, now, AT_ONCE).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        let mut ids = Vec::with_capacity(expired.len());
        for job in &expired {
            ids.extend(images::product_of(&*write, job.image_id).await?);
        }
        ids.sort_unstable();
        ids.dedup();
        products::lock(&*write, &ids).await?;
        for job in &expired {
            if job.crashes < MOST_CRASHES {
                images::set_pending(&*write, job.image_id, None, now).await?;
                continue;
            }
            let message = format!("{} workers died while they worked on this picture", job.crashes);
            let error = (ErrorCode::Poison, message.as_str());
            jobs::bury_unheld(&*write, job.id, error, now).await?;
            images::set_failed(&*write, job.image_id, error, now).await?;
        }
        self.commit_change(write, &ids, now).await?;
        self.queue().wake();
        Ok(expired.len())
    }
}

fn new_token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn held(held: bool) -> Result<(), Error> {
    if held { Ok(()) } else { Err(Error::LeaseLost) }
}
