//! Claims jobs, extends their leases, and settles them.
//!
//! The lease fences every write: a worker that lost its lease cannot change anything.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error, events::ImageProgress},
    clock::Timestamp,
    code::ErrorCode,
    db::{
        self, Write,
        jobs::{
            self, LEASE, attempts,
            claims::{self, NewLease, Next},
            crashes, leases,
        },
        products::{self, images, renditions},
    },
    domain::{
        AtCapacity, Attempt, AttemptOutcome, Content, EventKind, Facts, Image, ImageId, ImageSource, Job, JobPayload,
        ProductId, Rendition, UserId,
    },
};

/// Selects the job to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The next job in round-robin order of users, if the worker has capacity for that user.
    Next {
        /// The user of the last claimed job.
        after: Option<UserId>,
        /// The users and hosts at their limit in this worker.
        at_capacity: AtCapacity,
    },
    /// A job whose worker died. With a broker, its new message is behind all others.
    Orphan,
}

/// Result of a claim.
#[derive(Clone, Debug)]
pub enum Found {
    /// A job was claimed.
    Claimed(Box<Claimed>),
    /// Jobs are due, but the worker has no capacity for them.
    AtCapacity,
    /// No job is due.
    Nothing,
}

impl Due {
    /// Selects any due job.
    pub fn any() -> Self {
        Self::Next { after: None, at_capacity: AtCapacity::default() }
    }
}

impl Found {
    /// Returns the claimed job, if any.
    pub fn claimed(self) -> Option<Claimed> {
        match self {
            Self::Claimed(claimed) => Some(*claimed),
            Self::AtCapacity | Self::Nothing => None,
        }
    }
}

/// A claimed job.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job with its lease.
    pub job: Job,
    /// The product of the image.
    pub product_id: ProductId,
    /// The source of the image.
    pub source: ImageSource,
}

/// The result of processing an image.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Properties of the source image.
    pub facts: Facts,
    /// Warnings for clients.
    pub warnings: Vec<String>,
    /// The stored renditions.
    pub renditions: Vec<Rendition>,
    /// The rendered presets; `None` means all.
    pub presets: Option<Vec<String>>,
    /// Identifies the source bytes and the pipeline.
    pub content: Content,
}

/// Deduplication decision for downloaded source bytes.
#[derive(Clone, Debug)]
pub enum Deduplication {
    /// Decode the bytes.
    Decode,
    /// Retry later: another worker is processing the same bytes.
    Wait,
    /// Reuse the renditions of another image with the same bytes.
    Reuse(Box<Image>),
}

/// The process that a malicious image could crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRisk {
    /// The worker process.
    Worker,
    /// A separate decoder process; the image is not blamed if the worker dies.
    Decoder,
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// The image is ready.
    Ready(Outcome),
    /// The image failed permanently.
    Fail(ErrorCode, String),
    /// The attempt failed; the job is retried after the delay.
    Retry(ErrorCode, String, Duration),
    /// The decoder crashed. The job is retried after the delay; after three crashes the image fails as `poison`.
    Crash(String, Duration),
    /// The job returns to the queue unfinished; the attempt does not count.
    Release,
}

impl Settlement {
    /// Returns the attempt for the job's history, unless it succeeded or does not count.
    fn attempt(&self, job: &Job, now: Timestamp) -> Option<Attempt> {
        let (outcome, code, message) = match self {
            Self::Ready(_) | Self::Release => return None,
            Self::Fail(code, message) => (AttemptOutcome::Failed, *code, message),
            Self::Retry(code, message, _) => (AttemptOutcome::Retry, *code, message),
            Self::Crash(message, _) => (AttemptOutcome::Crashed, ErrorCode::Poison, message),
        };
        Some(Attempt { number: job.attempt, outcome, error: Some((code, message.clone())), ended_at: now })
    }

    /// Ends the claim in the database and returns the final settlement.
    ///
    /// The last allowed crash becomes a failure. Returns `None` if the lease was lost.
    async fn end_job(self, write: &Write, job: &Job, now: Timestamp) -> Result<Option<Self>, db::Error> {
        let held = match &self {
            Self::Ready(_) => jobs::finish(&**write, job, now).await?,
            Self::Fail(code, message) => jobs::mark_dead(&**write, job, (*code, message), now).await?,
            Self::Retry(code, message, delay) => {
                jobs::retry(&**write, job, (*code, message), now.plus(*delay), now).await?
            }
            Self::Crash(message, delay) => return end_crashed(write, job, message, *delay, now).await,
            Self::Release => jobs::release(&**write, job, now).await?,
        };
        Ok(held.then_some(self))
    }

    /// Returns the event of the image; an attempt that is retried has none.
    fn step(&self, claimed: &Claimed) -> Option<ImageProgress> {
        let (kind, error_code) = match self {
            Self::Ready(_) => (EventKind::ImageReady, None),
            Self::Fail(code, _) => (EventKind::ImageFailed, Some(*code)),
            Self::Retry(..) | Self::Crash(..) | Self::Release => return None,
        };
        Some(step(kind, claimed.product_id, claimed.job.image_id, error_code))
    }

    /// Returns the blobs that the image will refer to.
    fn blobs(&self) -> Vec<&str> {
        match self {
            Self::Ready(outcome) => outcome.renditions.iter().map(|made| made.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    async fn change_image(&self, write: &Write, job: &Job, now: Timestamp) -> Result<(), db::Error> {
        let id = job.image_id;
        match self {
            Self::Ready(outcome) => {
                let content = &outcome.content;
                let whole = outcome.presets.is_none() || images::is_made_of(&**write, id, content).await?;
                images::set_ready(&**write, id, (content, whole), &outcome.facts, &outcome.warnings, now).await?;
                renditions::replace(&**write, id, &outcome.renditions, outcome.presets.as_deref()).await
            }
            Self::Fail(code, message) => images::set_failed(&**write, id, (*code, message), now).await,
            Self::Retry(code, message, _) => images::set_pending(&**write, id, Some((*code, message)), now).await,
            Self::Crash(message, _) => images::set_pending(&**write, id, Some((ErrorCode::Poison, message)), now).await,
            Self::Release => images::set_untried(&**write, id, job.attempt - 1, now).await,
        }
    }
}

async fn end_crashed(
    write: &Write,
    job: &Job,
    message: &str,
    delay: Duration,
    now: Timestamp,
) -> Result<Option<Settlement>, db::Error> {
    let code = ErrorCode::Poison;
    let Some(crashes) = crashes::crash(&**write, job, (code, message), now.plus(delay), now).await? else {
        return Ok(None);
    };
    if crashes < MAX_CRASHES {
        return Ok(Some(Settlement::Crash(message.to_owned(), delay)));
    }
    let message = format!("workers or decoders crashed {crashes} times on this image; last error: {message}");
    crashes::mark_dead_without_lease(&**write, job.id, (code, &message), now).await?;
    Ok(Some(Settlement::Fail(code, message)))
}

pub(in crate::catalog) const fn step(
    kind: EventKind,
    product_id: ProductId,
    image_id: ImageId,
    error_code: Option<ErrorCode>,
) -> ImageProgress {
    ImageProgress { kind, product_id, image_id, error_code }
}

/// Returns the deduplication key: two workers never process the same bytes for the same presets at the same time.
fn deduplication_key(job: &Job, content: &Content) -> String {
    let Content { sha256, pipeline_fingerprint } = content;
    match &job.payload {
        JobPayload::ProcessImage { presets: Some(presets), .. } => {
            format!("{sha256}:{pipeline_fingerprint}:{}", presets.join(","))
        }
        _ => format!("{sha256}:{pipeline_fingerprint}"),
    }
}

/// Number of known worker and decoder crashes after which an image fails.
pub(super) const MAX_CRASHES: i32 = 3;

impl Catalog {
    /// Claims a due job, if any.
    pub async fn claim(&self, due: Due) -> Result<Found, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let token = catalog.lease_token().await;
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            let lease = NewLease { token, until: now.plus(LEASE) };
            let job = match due {
                Due::Next { after, at_capacity } => {
                    match claims::claim_next(&*write, &lease, now, after.as_ref(), &at_capacity).await? {
                        Next::Job(job) => Some(*job),
                        Next::AtCapacity => return Ok(Found::AtCapacity),
                        Next::Nothing => None,
                    }
                }
                Due::Orphan => claims::claim_orphan(&*write, &lease, now).await?,
            };
            let claimed = catalog.take_up(write, job, now).await?;
            Ok(claimed.map_or(Found::Nothing, |claimed| Found::Claimed(Box::new(claimed))))
        })
        .await
    }

    async fn take_up(&self, write: Write, job: Option<Job>, now: Timestamp) -> Result<Option<Claimed>, Error> {
        let Some(mut job) = job else {
            return Ok(None);
        };
        if job.attempt > 1 {
            job.lost = leases::losses(&*write, job.id).await?.lost;
        }
        let Some(work) = images::work(&*write, job.image_id).await? else {
            return Ok(None);
        };
        products::lock(&*write, &[work.product_id]).await?;
        images::set_processing(&*write, job.image_id, job.attempt, now).await?;
        let step = step(EventKind::ImageProcessing, work.product_id, job.image_id, None);
        self.commit_step(write, &[work.product_id], &[step], now).await?;
        Ok(Some(Claimed { job, product_id: work.product_id, source: work.source }))
    }

    /// Extends the lease of a job; returns `false` if it was lost.
    pub async fn extend_lease(&self, job: &Job) -> Result<bool, Error> {
        let (catalog, job) = (self.clone(), job.clone());
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let held = jobs::extend_lease(&*write, &job, write.now().await?.plus(LEASE)).await?;
            write.commit().await?;
            Ok(held)
        })
        .await
    }

    /// Decides whether `job` decodes `content`, waits, or reuses renditions.
    ///
    /// The same bytes are processed only once at a time. With `ignore_existing`, existing renditions are not reused.
    pub async fn deduplicate(
        &self,
        job: &Job,
        content: &Content,
        ignore_existing: bool,
    ) -> Result<Deduplication, Error> {
        let (catalog, job, content) = (self.clone(), job.clone(), content.clone());
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            if !ignore_existing && let Some(duplicate) = images::duplicate(&*write, &content, job.image_id).await? {
                return Ok(Deduplication::Reuse(Box::new(duplicate)));
            }
            let is_decoding = jobs::another_job_decodes(&*write, &deduplication_key(&job, &content), &job).await?;
            Ok(if is_decoding { Deduplication::Wait } else { Deduplication::Decode })
        })
        .await
    }

    /// Records that decoding of `content` begins; returns `false` if another worker already decodes the same bytes.
    ///
    /// If the worker dies and `at_risk` is [`AtRisk::Worker`], the death counts as a crash of the image.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the lease was lost.
    pub async fn begin_decoding(&self, job: &Job, content: &Content, at_risk: AtRisk) -> Result<bool, Error> {
        let (catalog, job, deduplication_key) = (self.clone(), job.clone(), deduplication_key(job, content));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let (blamable, until) = (at_risk == AtRisk::Worker, write.now().await?.plus(LEASE));
            match jobs::begin_decoding(&*write, &job, &deduplication_key, blamable, until).await {
                Ok(true) => write.commit().await.map(|()| true).map_err(Error::from),
                Ok(false) => Err(Error::LeaseLost),
                Err(db::Error::Duplicate(_)) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Ends a claim: updates the job, the image and the product in one transaction.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the lease was lost; [`Error::BlobGone`] if a rendition was deleted before a row referred
    /// to it. In both cases nothing is stored.
    pub async fn settle(&self, claimed: &Claimed, settlement: Settlement) -> Result<(), Error> {
        let (catalog, claimed) = (self.clone(), claimed.clone());
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            // The job's row is updated first: its lease is the fence.
            let attempt = settlement.attempt(&claimed.job, now);
            let Some(settlement) = settlement.end_job(&write, &claimed.job, now).await? else {
                return Err(Error::LeaseLost);
            };
            if let Some(attempt) = attempt {
                attempts::record(&*write, claimed.job.id, &attempt).await?;
            }
            catalog.pin_blobs(&write, &settlement.blobs()).await?;
            products::lock(&*write, &[claimed.product_id]).await?;
            settlement.change_image(&write, &claimed.job, now).await?;
            let step = settlement.step(&claimed);
            catalog.commit_step(write, &[claimed.product_id], step.as_slice(), now).await?;
            if matches!(settlement, Settlement::Release) {
                catalog.queue().wake();
            }
            Ok(())
        })
        .await
    }
}
