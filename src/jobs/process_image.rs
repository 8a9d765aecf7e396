//! A picture's way: fetch → probe → charge the budget → decode, resize, encode on a thread of its own → blobs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use crate::{
    blobs::{BlobKey, Blobs},
    catalog::{Claimed, Outcome},
    code::ErrorCode,
    domain::{Facts, ImageSource, JobPayload, Rendition},
    fetch::Fetcher,
    imaging::{self, Limits, Preset, Processed, Rendered},
    jobs::{Budget, Failure},
};

/// What a handler works with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is made of each picture.
    pub presets: Vec<Preset>,
    /// What is refused before it is decoded.
    pub limits: Limits,
    /// Bytes that all decoders share.
    pub memory: u64,
    /// Pictures that are decoded at the same time.
    pub decoders: usize,
}

/// Processes pictures; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handler {
    fetcher: Fetcher,
    blobs: Blobs,
    config: Arc<Config>,
    budget: Budget,
    decoders: Arc<Semaphore>,
}

/// How long each step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Until the last byte was here.
    pub fetch: Duration,
    /// For a free decoder and free memory.
    pub wait: Duration,
    /// Source to pixels.
    pub decode: Duration,
    /// Pixels to smaller pixels.
    pub resize: Duration,
    /// Pixels to renditions.
    pub encode: Duration,
    /// Until the renditions were safe.
    pub store: Duration,
}

/// A picture that was processed.
#[derive(Clone, Debug)]
pub struct Report {
    /// What is to be stored about it.
    pub outcome: Outcome,
    /// How long each step took.
    pub steps: Steps,
}

impl Handler {
    /// A handler with a budget of its own.
    pub fn new(config: Config, fetcher: Fetcher, blobs: Blobs) -> Self {
        let budget = Budget::new(config.memory);
        let decoders = Arc::new(Semaphore::new(config.decoders.max(1)));
        Self { fetcher, blobs, config: Arc::new(config), budget, decoders }
    }

    /// Works on a claimed picture; touches nothing but blobs, so it may run twice. `may_decode` is awaited right before the
    /// only step that could take the process down.
    ///
    /// # Errors
    /// [`Failure`] with its code, and whether another attempt makes sense.
    pub async fn run(
        &self,
        claimed: &Claimed,
        may_decode: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Report, Failure> {
        let presets = self.wanted_presets(&claimed.job.payload)?;
        let mut steps = Steps::default();

        let began = Instant::now();
        let source = self.source(&claimed.source).await?;
        steps.fetch = began.elapsed();
        let source_bytes = source.len() as u64;
        metrics::counter!("pm_image_bytes_in_total").increment(source_bytes);

        let processed = self.process(source, presets.made.clone(), may_decode, &mut steps).await?;

        let began = Instant::now();
        let facts = facts_of(&processed, source_bytes);
        let warnings = processed.warnings.iter().map(|warning| warning.as_str().to_owned()).collect();
        let renditions = try_join_all(processed.renditions.into_iter().map(|made| self.store(made))).await?;
        steps.store = began.elapsed();
        count_bytes(source_bytes, &renditions);

        Ok(Report { outcome: Outcome { facts, warnings, renditions, presets: presets.only }, steps })
    }

    fn wanted_presets(&self, payload: &JobPayload) -> Result<Wanted, Failure> {
        match payload {
            JobPayload::ProcessImage { v: 1, presets: None } => {
                Ok(Wanted { made: self.config.presets.clone(), only: None })
            }
            JobPayload::ProcessImage { v: 1, presets: Some(names) } => {
                let known = |name: &String| self.config.presets.iter().find(|preset| preset.name == *name).cloned();
                let made: Option<Vec<_>> = names.iter().map(known).collect();
                let unknown = || Failure::transient(ErrorCode::Internal, "this worker has other presets than the job");
                Ok(Wanted { made: made.ok_or_else(unknown)?, only: Some(names.clone()) })
            }
            _ => Err(Failure::transient(ErrorCode::Internal, "the job was queued by a newer version of pm")),
        }
    }

    async fn source(&self, source: &ImageSource) -> Result<Bytes, Failure> {
        let key = match source {
            ImageSource::Url(url) => return Ok(self.fetcher.fetch(url).await?),
            ImageSource::Stored(key) => key,
        };
        let gone = || Failure::permanent(ErrorCode::SourceNotFound, "the uploaded file is no longer in the store");
        let key = BlobKey::parse(key).ok_or_else(gone)?;
        self.blobs.read(&key).await?.ok_or_else(gone)
    }

    /// Decoders and memory are taken before the thread is, and given back by the thread itself: it cannot be stopped.
    async fn process(
        &self,
        source: Bytes,
        presets: Vec<Preset>,
        may_decode: impl Future<Output = Result<(), Failure>>,
        steps: &mut Steps,
    ) -> Result<Processed, Failure> {
        let began = Instant::now();
        let needed = imaging::memory_needed(&source, &presets, &self.config.limits)?;
        let charge = self.budget.charge(needed).await.ok_or_else(|| {
            let (needed, total) = (needed >> 20, self.budget.total() >> 20);
            let message = format!("decoding the picture needs {needed} MiB; at most {total} MiB are spent");
            Failure::permanent(ErrorCode::TooComplex, message)
        })?;
        // The semaphore is never closed.
        let decoder = self.decoders.clone().acquire_owned().await.ok();
        may_decode.await?;
        steps.wait = began.elapsed();

        let limits = self.config.limits.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let _held = (charge, decoder);
            imaging::process(&source, &presets, &limits)
        });
        let processed =
            thread.await.map_err(|_| Failure::permanent(ErrorCode::Undecodable, "the decoder broke down"))??;
        steps.decode = processed.steps.decode;
        steps.resize = processed.steps.resize;
        steps.encode = processed.steps.encode + processed.steps.describe;
        Ok(processed)
    }

    async fn store(&self, made: Rendered) -> Result<Rendition, Failure> {
        let (format, extension) = (made.format_name().to_owned(), made.extension());
        let (preset, width, height) = (made.preset, made.width, made.height);
        let bytes = made.bytes.len() as u64;
        let key = self.blobs.put(Bytes::from(made.bytes), extension).await?;
        Ok(Rendition { preset, format, width, height, bytes, key: key.to_string() })
    }
}

struct Wanted {
    made: Vec<Preset>,
    only: Option<Vec<String>>,
}

fn facts_of(processed: &Processed, source_bytes: u64) -> Facts {
    Facts {
        width: processed.width,
        height: processed.height,
        format: processed.format.as_str().to_owned(),
        bytes: source_bytes,
        thumbhash: processed.thumbhash.clone(),
        dominant_color: processed.dominant_color.clone(),
    }
}

/// Saved is what a page saves that shows the largest rendition in the source's place.
fn count_bytes(source: u64, renditions: &[Rendition]) {
    let largest = renditions.iter().max_by_key(|made| u64::from(made.width) * u64::from(made.height));
    metrics::counter!("pm_image_bytes_out_total").increment(renditions.iter().map(|made| made.bytes).sum());
    metrics::counter!("pm_image_bytes_saved_total")
        .increment(source.saturating_sub(largest.map_or(source, |made| made.bytes)));
}
