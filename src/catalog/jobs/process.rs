//! What a worker does to the truth: claim a job, lengthen its lease, store or report what became of it. Every write is
//! fenced by the lease: a worker that was thought dead changes nothing any more.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error, events::PictureStep},
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
        Attempt, AttemptOutcome, Busy, Content, EventKind, Facts, Image, ImageId, ImageSource, Job, JobPayload,
        ProductId, Rendition, UserId,
    },
};

/// Which job is to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The next user's, as far as the worker has a place for it.
    Next {
        /// Whose job was claimed last.
        after: Option<UserId>,
        /// For whom the worker has no place.
        busy: Busy,
    },
    /// One whose worker died: with a broker its new message waits behind all others.
    Orphan,
}

/// What came of looking for a job.
#[derive(Clone, Debug)]
pub enum Found {
    /// This one was claimed.
    Claimed(Box<Claimed>),
    /// Jobs are due, but the worker has no place for them.
    Busy,
    /// No job is due.
    Nothing,
}

impl Due {
    /// Whatever job is due.
    pub fn any() -> Self {
        Self::Next { after: None, busy: Busy::default() }
    }
}

impl Found {
    /// The job, if one was claimed.
    pub fn claimed(self) -> Option<Claimed> {
        match self {
            Self::Claimed(claimed) => Some(*claimed),
            Self::Busy | Self::Nothing => None,
        }
    }
}

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
    /// What it was made of.
    pub content: Content,
}

/// What a worker is to do with the bytes it has.
#[derive(Clone, Debug)]
pub enum Turn {
    /// Decode them.
    Decode,
    /// Ask again in a moment: another worker is at the same bytes.
    Wait,
    /// Take what was made of them for another picture.
    Reuse(Box<Image>),
}

/// What a picture could take down by being decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRisk {
    /// The worker itself.
    Worker,
    /// A process of its own: if the worker dies, it is not the picture's fault.
    Decoder,
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// The picture is ready.
    Ready(Outcome),
    /// The picture cannot be had.
    Fail(ErrorCode, String),
    /// The attempt failed; another one follows after the delay.
    Retry(ErrorCode, String, Duration),
    /// The decoder died over the picture. Another attempt follows after the delay, unless workers and decoders have died over
    /// it three times by now: then it is given up as `poison`.
    Crash(String, Duration),
    /// The job goes back unfinished; the attempt does not count.
    Release,
}

impl Settlement {
    /// The attempt for the job's history; none if it succeeded or does not count.
    fn attempt(&self, job: &Job, now: Timestamp) -> Option<Attempt> {
        let (outcome, code, message) = match self {
            Self::Ready(_) | Self::Release => return None,
            Self::Fail(code, message) => (AttemptOutcome::Failed, *code, message),
            Self::Retry(code, message, _) => (AttemptOutcome::Retry, *code, message),
            Self::Crash(message, _) => (AttemptOutcome::Crashed, ErrorCode::Poison, message),
        };
        Some(Attempt { number: job.attempt, outcome, error: Some((code, message.clone())), ended_at: now })
    }

    /// Ends the job and answers what it comes to: a crash is another attempt or the end. `None` if the lease is no longer the
    /// caller's.
    async fn end_job(self, write: &Write, job: &Job, now: Timestamp) -> Result<Option<Self>, db::Error> {
        let held = match &self {
            Self::Ready(_) => jobs::finish(&**write, job, now).await?,
            Self::Fail(code, message) => jobs::bury(&**write, job, (*code, message), now).await?,
            Self::Retry(code, message, delay) => {
                jobs::retry(&**write, job, (*code, message), now.plus(*delay), now).await?
            }
            Self::Crash(message, delay) => return end_crashed(write, job, message, *delay, now).await,
            Self::Release => jobs::release(&**write, job, now).await?,
        };
        Ok(held.then_some(self))
    }

    /// What listeners are told of the picture; an attempt that is followed by another one is no step.
    fn step(&self, claimed: &Claimed) -> Option<PictureStep> {
        let (kind, error_code) = match self {
            Self::Ready(_) => (EventKind::ImageReady, None),
            Self::Fail(code, _) => (EventKind::ImageFailed, Some(*code)),
            Self::Retry(..) | Self::Crash(..) | Self::Release => return None,
        };
        Some(step(kind, claimed.product_id, claimed.job.image_id, error_code))
    }

    /// The blobs that are referred to from now on.
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
    let message = format!("workers or decoders died {crashes} times over this picture; at last: {message}");
    crashes::bury_unheld(&**write, job.id, (code, &message), now).await?;
    Ok(Some(Settlement::Fail(code, message)))
}

pub(in crate::catalog) const fn step(
    kind: EventKind,
    product_id: ProductId,
    image_id: ImageId,
    error_code: Option<ErrorCode>,
) -> PictureStep {
    PictureStep { kind, product_id, image_id, error_code }
}

/// What two jobs cannot be at together: the same bytes for the same presets.
fn working_on(job: &Job, content: &Content) -> String {
    let Content { sha256, recipe } = content;
    match &job.payload {
        JobPayload::ProcessImage { presets: Some(presets), .. } => format!("{sha256}:{recipe}:{}", presets.join(",")),
        _ => format!("{sha256}:{recipe}"),
    }
}

/// After this many workers and decoders are known to have died over an image it is given up.
pub(super) const MAX_CRASHES: i32 = 3;

impl Catalog {
    /// Claims a job, if there is such a one and nobody has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn claim(&self, due: Due) -> Result<Found, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let token = catalog.lease_token().await;
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            let lease = NewLease { token, until: now.plus(LEASE) };
            let job = match due {
                Due::Next { after, busy } => {
                    match claims::claim_next(&*write, &lease, now, after.as_ref(), &busy).await? {
                        Next::Job(job) => Some(*job),
                        Next::Busy => return Ok(Found::Busy),
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

    /// Says that the worker is alive; `false` if the job is another's by now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
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

    /// Whose turn it is to decode `content` for `job`: the same bytes are processed once, whoever asks for them. With
    /// `anew` nothing that was made before is taken.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn turn(&self, job: &Job, content: &Content, anew: bool) -> Result<Turn, Error> {
        let (catalog, job, content) = (self.clone(), job.clone(), content.clone());
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            if !anew && let Some(twin) = images::twin(&*write, &content, job.image_id).await? {
                return Ok(Turn::Reuse(Box::new(twin)));
            }
            let taken = jobs::is_worked_on(&*write, &working_on(&job, &content), &job).await?;
            Ok(if taken { Turn::Wait } else { Turn::Decode })
        })
        .await
    }

    /// Says that `content` is being decoded from now on: should the worker die, it may be the picture's fault if the worker
    /// is what it is decoded in. `false` if another worker has begun with the same bytes meanwhile.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now; [`Error::Unavailable`] by the database.
    pub async fn begin_decoding(&self, job: &Job, content: &Content, at_risk: AtRisk) -> Result<bool, Error> {
        let (catalog, job, working_on) = (self.clone(), job.clone(), working_on(job, content));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let (blamable, until) = (at_risk == AtRisk::Worker, write.now().await?.plus(LEASE));
            match jobs::begin_decoding(&*write, &job, &working_on, blamable, until).await {
                Ok(true) => write.commit().await.map(|()| true).map_err(Error::from),
                Ok(false) => Err(Error::LeaseLost),
                Err(db::Error::Duplicate(_)) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Ends a claim: the job, its picture and the product's new version at once.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now, [`Error::BlobGone`] if a rendition was removed before anything
    /// referred to it: then nothing was stored.
    pub async fn settle(&self, claimed: &Claimed, settlement: Settlement) -> Result<(), Error> {
        let (catalog, claimed) = (self.clone(), claimed.clone());
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            // The job's row comes first: it is the fence.
            let attempt = settlement.attempt(&claimed.job, now);
            let Some(settlement) = settlement.end_job(&write, &claimed.job, now).await? else {
                return Err(Error::LeaseLost);
            };
            if let Some(attempt) = attempt {
                attempts::record(&*write, claimed.job.id, &attempt).await?;
            }
            catalog.refer_to(&write, &settlement.blobs()).await?;
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
