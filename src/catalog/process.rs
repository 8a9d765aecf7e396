//! What a worker does to the truth: claim a job, lengthen its lease, store or report what became of it. Every write is
//! fenced by the lease: a worker that was thought dead changes nothing any more.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    code::ErrorCode,
    db::{
        self, Write, images,
        jobs::{self, LEASE},
        products, renditions,
    },
    domain::{Content, Facts, Image, ImageSource, Job, JobId, JobPayload, ProductId, Rendition},
};

/// Which job is to be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The one that has been due longest.
    First,
    /// One whose worker died: with a broker its new message waits behind all others.
    Orphan,
    /// This one.
    This(JobId),
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

/// How a claim ends.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// The picture is ready.
    Ready(Outcome),
    /// The picture cannot be had.
    Fail(ErrorCode, String),
    /// The attempt failed; another one follows after the delay.
    Retry(ErrorCode, String, Duration),
    /// The job goes back unfinished; the attempt does not count.
    Release,
}

impl Settlement {
    /// `false` if the lease is no longer the caller's.
    async fn end_job(&self, write: &Write, job: &Job, now: Timestamp) -> Result<bool, db::Error> {
        match self {
            Self::Ready(_) => jobs::finish(&**write, job, now).await,
            Self::Fail(code, message) => jobs::bury(&**write, job, (*code, message), now).await,
            Self::Retry(code, message, delay) => {
                jobs::retry(&**write, job, (*code, message), now.plus(*delay), now).await
            }
            Self::Release => jobs::release(&**write, job, now).await,
        }
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
            Self::Release => images::set_untried(&**write, id, job.attempt - 1, now).await,
        }
    }
}

/// What two jobs cannot be at together: the same bytes for the same presets.
fn working_on(job: &Job, content: &Content) -> String {
    let Content { sha256, recipe } = content;
    match &job.payload {
        JobPayload::ProcessImage { presets: Some(presets), .. } => format!("{sha256}:{recipe}:{}", presets.join(",")),
        _ => format!("{sha256}:{recipe}"),
    }
}

/// After this many dead workers a picture is given up.
const MOST_CRASHES: i32 = 3;

impl Catalog {
    /// Claims a job, if there is such a one and nobody has it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn claim(&self, due: Due) -> Result<Option<Claimed>, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let (token, now) = (uuid::Uuid::new_v4().simple().to_string(), Timestamp::now());
            let (write, until) = (catalog.database().begin().await?, now.plus(LEASE));
            let job = match due {
                Due::First => jobs::claim_next(&*write, &token, until, now).await?,
                Due::Orphan => jobs::claim_orphan(&*write, &token, until, now).await?,
                Due::This(id) => jobs::claim(&*write, id, &token, until, now).await?,
            };
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
        let (catalog, job) = (self.clone(), job.clone());
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let held = jobs::extend_lease(&*write, &job, Timestamp::now().plus(LEASE)).await?;
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

    /// Says that `content` is being decoded from now on: should the worker die, it may be the picture's fault. `false` if
    /// another worker has begun with the same bytes meanwhile.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if the job is another's by now; [`Error::Unavailable`] by the database.
    pub async fn begin_decoding(&self, job: &Job, content: &Content) -> Result<bool, Error> {
        let (catalog, job, working_on) = (self.clone(), job.clone(), working_on(job, content));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            match jobs::begin_decoding(&*write, &job, &working_on, Timestamp::now().plus(LEASE)).await {
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
            let now = Timestamp::now();
            let write = catalog.database().begin().await?;
            // The job's row comes first: it is the fence.
            if !settlement.end_job(&write, &claimed.job, now).await? {
                return Err(Error::LeaseLost);
            }
            catalog.refer_to(&write, &settlement.blobs()).await?;
            products::lock(&*write, &[claimed.product_id]).await?;
            settlement.change_image(&write, &claimed.job, now).await?;
            catalog.commit_change(write, &[claimed.product_id], now).await?;
            if matches!(settlement, Settlement::Release) {
                catalog.queue().wake();
            }
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
        let now = Timestamp::now();
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
