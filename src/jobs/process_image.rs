//! A picture's way: fetch → hash and probe → take what was made of the same bytes before, or else: charge the budget →
//! decode, resize, encode in a process of its own → blobs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::try_join_all;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    blobs::{BlobKey, Blobs},
    catalog::{AtRisk, Catalog, Claimed, Outcome, Turn},
    code::ErrorCode,
    domain::{Content, Facts, Image, ImageSource, JobPayload, Rendition},
    fetch::Fetcher,
    imaging::{Limits, Preset, Processed, Rendered},
    isolation::{self, Budget, Charge, Decoders, Picture},
    jobs::{Failure, recipe},
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
    /// Where they are decoded.
    pub isolation: isolation::Config,
}

/// Processes pictures; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handler {
    fetcher: Fetcher,
    blobs: Blobs,
    config: Arc<Config>,
    recipe: Arc<str>,
    budget: Budget,
    seats: Arc<Semaphore>,
    decoders: Decoders,
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
    /// Whether it was made for another picture before.
    pub reused: bool,
}

/// Another worker that is at the same bytes is asked again after this, twice as long each time up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Handler {
    /// A handler with a budget of its own.
    pub fn new(config: Config, fetcher: Fetcher, blobs: Blobs) -> Self {
        let budget = Budget::new(config.memory);
        let seats = Arc::new(Semaphore::new(config.decoders.max(1)));
        let decoders = Decoders::new(&config.isolation);
        let recipe = recipe::of(&config.presets).into();
        Self { fetcher, blobs, config: Arc::new(config), recipe, budget, seats, decoders }
    }

    /// Works on a claimed picture; changes nothing but blobs, so it may run twice. `catalog` is asked for the turn to decode,
    /// the only step that could take the process down. `downloaded` is called once the picture's host is no longer needed.
    ///
    /// # Errors
    /// [`Failure`] with its code, and whether another attempt makes sense.
    pub async fn run(
        &self,
        claimed: &Claimed,
        catalog: &Catalog,
        downloaded: impl FnOnce() + Send,
    ) -> Result<Report, Failure> {
        let presets = self.wanted_presets(&claimed.job.payload)?;
        let mut steps = Steps::default();

        let began = Instant::now();
        let source = self.source(&claimed.source).await?;
        steps.fetch = began.elapsed();
        downloaded();
        let source_bytes = source.len() as u64;
        metrics::counter!("pm_image_bytes_in_total").increment(source_bytes);

        let began = Instant::now();
        let picture = Picture { source, presets: presets.made, limits: self.config.limits.clone() };
        let (needed, sha256) = self.examine(&picture).await?;
        let content = Content { sha256, recipe: self.recipe.to_string() };
        let turn = self.turn(claimed, catalog, &content, needed).await?;
        steps.wait = began.elapsed();
        let held = match turn {
            Granted::Decode(held) => held,
            Granted::Reuse(twin) => {
                metrics::counter!("pm_images_reused_total").increment(1);
                let outcome = reused(*twin, content, presets.only)?;
                return Ok(Report { outcome, steps, reused: true });
            }
        };

        let processed = self.decoders.process(picture, needed, held).await?;
        steps.decode = processed.steps.decode;
        steps.resize = processed.steps.resize;
        steps.encode = processed.steps.encode + processed.steps.describe;

        let began = Instant::now();
        let facts = facts_of(&processed, source_bytes);
        let warnings = processed.warnings.iter().map(|warning| warning.as_str().to_owned()).collect();
        let renditions = try_join_all(processed.renditions.into_iter().map(|made| self.store(made))).await?;
        steps.store = began.elapsed();
        count_bytes(source_bytes, &renditions);

        let outcome = Outcome { facts, warnings, renditions, presets: presets.only, content };
        Ok(Report { outcome, steps, reused: false })
    }

    /// The memory that the picture needs, by its headers, and the hash of its bytes, which for a large file takes too long for an async thread.
    async fn examine(&self, picture: &Picture) -> Result<(u64, String), Failure> {
        let source = picture.source.clone();
        let hash = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&source)));
        let needed = self.decoders.memory_needed(picture).await?;
        let sha256 = hash.await.map_err(|_| Failure::transient(ErrorCode::Internal, "the picture was not hashed"))?;
        Ok((needed, sha256))
    }

    /// Waits for the turn to decode, or for what was made of the same bytes meanwhile or before, if its blobs are still
    /// what they were. Nothing of the budget is held while another worker is at the same bytes.
    async fn turn(
        &self,
        claimed: &Claimed,
        catalog: &Catalog,
        content: &Content,
        needed: u64,
    ) -> Result<Granted, Failure> {
        let (mut anew, mut pause) = (false, FIRST_PAUSE);
        loop {
            match catalog.turn(&claimed.job, content, anew).await? {
                Turn::Decode => {
                    let held = self.hold(needed).await?;
                    if catalog.begin_decoding(&claimed.job, content, self.at_risk()).await? {
                        return Ok(Granted::Decode(held));
                    }
                }
                Turn::Reuse(twin) if self.are_whole(&twin.renditions).await? => {
                    return Ok(Granted::Reuse(twin));
                }
                Turn::Reuse(_) => anew = true,
                Turn::Wait => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    const fn at_risk(&self) -> AtRisk {
        if self.decoders.are_apart() { AtRisk::Decoder } else { AtRisk::Worker }
    }

    /// Whether every rendition has its blob, proved by its SHA-256: one that is damaged must never reach another product.
    async fn are_whole(&self, renditions: &[Rendition]) -> Result<bool, Failure> {
        for rendition in renditions {
            let Some(key) = BlobKey::parse(&rendition.key) else { return Ok(false) };
            if !self.blobs.prove(&key).await? {
                return Ok(false);
            }
        }
        Ok(true)
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
        // Renditions of damaged bytes would look like those of the image.
        let Some(bytes) = self.blobs.read_proved(&key).await? else {
            self.blobs.ensure_there().await?;
            return Err(gone());
        };
        Ok(bytes)
    }

    /// Waits until there are `needed` bytes of memory and a core.
    async fn hold(&self, needed: u64) -> Result<Held, Failure> {
        let charge = self.budget.charge(needed).await.ok_or_else(|| {
            let (needed, total) = (needed >> 20, self.budget.total() >> 20);
            let message = format!("decoding the picture needs {needed} MiB; at most {total} MiB are spent");
            Failure::permanent(ErrorCode::TooComplex, message)
        })?;
        // The semaphore is never closed.
        let seat = self.seats.clone().acquire_owned().await.ok();
        Ok(Held { _charge: charge, _seat: seat })
    }

    async fn store(&self, made: Rendered) -> Result<Rendition, Failure> {
        let (format, extension) = (made.format_name().to_owned(), made.extension());
        let (preset, width, height) = (made.preset, made.width, made.height);
        let bytes = made.bytes.len() as u64;
        let key = self.blobs.put(Bytes::from(made.bytes), extension).await?;
        Ok(Rendition { preset, format, width, height, bytes, key: key.to_string() })
    }
}

/// A share of the memory and a core, until they are dropped.
struct Held {
    _charge: Charge,
    _seat: Option<OwnedSemaphorePermit>,
}

/// How a picture's turn ended.
enum Granted {
    Decode(Held),
    Reuse(Box<Image>),
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
        perceptual_hash: Some(format!("{:016x}", processed.perceptual_hash)),
    }
}

/// What was made for `twin` as the outcome for another picture, of which perhaps `only` some presets are asked for.
fn reused(twin: Image, content: Content, only: Option<Vec<String>>) -> Result<Outcome, Failure> {
    let mut renditions = twin.renditions;
    if let Some(only) = &only {
        renditions.retain(|rendition| only.contains(&rendition.preset));
    }
    let unknown = || Failure::transient(ErrorCode::Internal, "nothing is known of a picture that is ready");
    Ok(Outcome { facts: twin.facts.ok_or_else(unknown)?, warnings: twin.warnings, renditions, presets: only, content })
}

/// Saved is what a page saves that shows the largest rendition in the source's place.
fn count_bytes(source: u64, renditions: &[Rendition]) {
    let largest = renditions.iter().max_by_key(|made| u64::from(made.width) * u64::from(made.height));
    metrics::counter!("pm_image_bytes_out_total").increment(renditions.iter().map(|made| made.bytes).sum());
    metrics::counter!("pm_image_bytes_saved_total")
        .increment(source.saturating_sub(largest.map_or(source, |made| made.bytes)));
}
