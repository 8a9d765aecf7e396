//! Processes an image: fetch, hash and probe; then reuse renditions of the same bytes, or reserve memory, decode,
//! resize and encode in a decoder process, and store the blobs.

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
    catalog::{AtRisk, Catalog, Claimed, Deduplication, Outcome},
    code::ErrorCode,
    domain::{Content, Facts, Image, ImageSource, JobPayload, Rendition},
    fetch::Fetcher,
    imaging::{Limits, Preset, Processed, Rendered},
    isolation::{self, Budget, Charge, DecodeTask, Decoders},
    jobs::{Failure, fingerprint},
};

/// Configures a handler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Presets to render.
    pub presets: Vec<Preset>,
    /// Limits on accepted images.
    pub limits: Limits,
    /// Memory shared by all decoders, in bytes.
    pub memory: u64,
    /// Maximum number of images decoded at a time.
    pub decoders: usize,
    /// How images are decoded.
    pub isolation: isolation::Config,
}

/// Processes images; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handler {
    fetcher: Fetcher,
    blobs: Blobs,
    config: Arc<Config>,
    fingerprint: Arc<str>,
    budget: Budget,
    permits: Arc<Semaphore>,
    decoders: Decoders,
}

/// Duration of each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Download of the source.
    pub fetch: Duration,
    /// Wait for a free decoder and free memory.
    pub wait: Duration,
    /// Decoding the source.
    pub decode: Duration,
    /// Resizing.
    pub resize: Duration,
    /// Encoding the renditions.
    pub encode: Duration,
    /// Storing the renditions.
    pub store: Duration,
}

/// Result of a processed image.
#[derive(Clone, Debug)]
pub struct Report {
    /// Data to store in the catalog.
    pub outcome: Outcome,
    /// Duration of each step.
    pub steps: Steps,
    /// Whether the renditions of another image were reused.
    pub reused: bool,
}

/// Pause before asking again while another worker processes the same bytes; doubled each time up to `MAX_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);

impl Handler {
    /// Creates a handler with its own memory budget.
    pub fn new(config: Config, fetcher: Fetcher, blobs: Blobs) -> Self {
        let budget = Budget::new(config.memory);
        let permits = Arc::new(Semaphore::new(config.decoders.max(1)));
        let decoders = Decoders::new(&config.isolation);
        let fingerprint = fingerprint::of(&config.presets).into();
        Self { fetcher, blobs, config: Arc::new(config), fingerprint, budget, permits, decoders }
    }

    /// Processes a claimed image. It changes only blobs, so it may run twice.
    ///
    /// It asks `catalog` for permission to decode, the only step that may crash the process. It calls `downloaded` when
    /// it no longer needs the origin.
    ///
    /// # Errors
    /// [`Failure`] with its code and retry policy.
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
        let image = DecodeTask { source, presets: presets.made, limits: self.config.limits.clone() };
        let (needed, sha256) = self.examine(&image).await?;
        let content = Content { sha256, pipeline_fingerprint: self.fingerprint.to_string() };
        let turn = self.turn(claimed, catalog, &content, needed).await?;
        steps.wait = began.elapsed();
        let held = match turn {
            Granted::Decode(held) => held,
            Granted::Reuse(duplicate) => {
                metrics::counter!("pm_images_reused_total").increment(1);
                let outcome = reused(*duplicate, content, presets.only)?;
                return Ok(Report { outcome, steps, reused: true });
            }
        };

        let processed = self.decoders.process(image, needed, held).await?;
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

    /// Returns the memory that the image needs, according to its headers, and the SHA-256 of its bytes. Hashing runs on
    /// a blocking thread.
    async fn examine(&self, image: &DecodeTask) -> Result<(u64, String), Failure> {
        let source = image.source.clone();
        let hash = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&source)));
        let needed = self.decoders.memory_needed(image).await?;
        let sha256 = hash.await.map_err(|_| Failure::transient(ErrorCode::Internal, "hashing the image failed"))?;
        Ok((needed, sha256))
    }

    /// Waits for permission to decode, or returns renditions already made from the same bytes if their blobs are
    /// intact. It reserves no memory while another worker processes the same bytes.
    async fn turn(
        &self,
        claimed: &Claimed,
        catalog: &Catalog,
        content: &Content,
        needed: u64,
    ) -> Result<Granted, Failure> {
        let (mut ignore_existing, mut pause) = (false, FIRST_PAUSE);
        loop {
            match catalog.deduplicate(&claimed.job, content, ignore_existing).await? {
                Deduplication::Decode => {
                    let held = self.hold(needed).await?;
                    if catalog.begin_decoding(&claimed.job, content, self.at_risk()).await? {
                        return Ok(Granted::Decode(held));
                    }
                }
                Deduplication::Reuse(duplicate) if self.are_whole(&duplicate.renditions).await? => {
                    return Ok(Granted::Reuse(duplicate));
                }
                Deduplication::Reuse(_) => ignore_existing = true,
                Deduplication::Wait => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    const fn at_risk(&self) -> AtRisk {
        if self.decoders.are_apart() { AtRisk::Decoder } else { AtRisk::Worker }
    }

    /// Returns whether every rendition's blob exists and matches its SHA-256. A damaged blob must never reach another
    /// product.
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
                let unknown = || Failure::transient(ErrorCode::Internal, "this worker lacks a preset of the job");
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
        // Verify the bytes: renditions of damaged bytes would look valid.
        let Some(bytes) = self.blobs.read_proved(&key).await? else {
            self.blobs.ensure_there().await?;
            return Err(gone());
        };
        Ok(bytes)
    }

    /// Waits until `needed` bytes of memory and a decoder are free.
    async fn hold(&self, needed: u64) -> Result<Held, Failure> {
        let charge = self.budget.charge(needed).await.ok_or_else(|| {
            let (needed, total) = (needed >> 20, self.budget.total() >> 20);
            let message = format!("decoding the image needs {needed} MiB of memory; the limit is {total} MiB");
            Failure::permanent(ErrorCode::TooComplex, message)
        })?;
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        Ok(Held { _charge: charge, _permit: permit })
    }

    async fn store(&self, made: Rendered) -> Result<Rendition, Failure> {
        let (format, extension) = (made.format_name().to_owned(), made.extension());
        let (preset, width, height) = (made.preset, made.width, made.height);
        let bytes = made.bytes.len() as u64;
        let key = self.blobs.put(Bytes::from(made.bytes), extension).await?;
        Ok(Rendition { preset, format, width, height, bytes, key: key.to_string() })
    }
}

/// Reserved memory and a decoder permit; dropping it releases both.
struct Held {
    _charge: Charge,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Permission to decode, or an image whose renditions are reused.
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

/// Returns the renditions of `duplicate` as the result of another image, limited to the presets `only` if given.
fn reused(duplicate: Image, content: Content, only: Option<Vec<String>>) -> Result<Outcome, Failure> {
    let mut renditions = duplicate.renditions;
    if let Some(only) = &only {
        renditions.retain(|rendition| only.contains(&rendition.preset));
    }
    let unknown = || Failure::transient(ErrorCode::Internal, "the duplicate image has no metadata");
    Ok(Outcome {
        facts: duplicate.facts.ok_or_else(unknown)?,
        warnings: duplicate.warnings,
        renditions,
        presets: only,
        content,
    })
}

/// Counts bytes in and out. Saved bytes: the source's size minus the largest rendition's.
fn count_bytes(source: u64, renditions: &[Rendition]) {
    let largest = renditions.iter().max_by_key(|made| u64::from(made.width) * u64::from(made.height));
    metrics::counter!("pm_image_bytes_out_total").increment(renditions.iter().map(|made| made.bytes).sum());
    metrics::counter!("pm_image_bytes_saved_total")
        .increment(source.saturating_sub(largest.map_or(source, |made| made.bytes)));
}
