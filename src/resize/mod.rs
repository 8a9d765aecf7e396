//! Makes image variants on demand, requested by signed URLs.
//!
//! A variant is made from stored blobs, once however many clients request it at the same time, and then kept. Nothing
//! is fetched from the network.

mod options;
mod signature;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use options::{MAX_SIDE, Options};
pub use signature::UrlKeys;

use crate::{
    blobs::{self, BlobKey, Blobs},
    catalog::{self, Catalog, ImageView as Stored, NewVariant, Origin},
    code::ErrorCode,
    domain::ImageId,
    imaging::{Fit, Limits, OutputFormat},
    isolation::{self, Budget, DecodeTask, Decoders},
};

/// Configures a resizer.
#[derive(Clone, Debug)]
pub struct ResizeConfig {
    /// Limits on accepted images.
    pub limits: Limits,
    /// Memory shared by all variants being made, in bytes.
    pub memory: u64,
    /// Maximum number of variants made at a time.
    pub decoders: usize,
    /// How images are decoded.
    pub isolation: isolation::Config,
}

impl Default for ResizeConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self { memory: limits.max_memory, limits, decoders: 1, isolation: isolation::Config::default() }
    }
}

/// Makes variants on demand; cheap to clone.
#[derive(Clone, Debug)]
pub struct Resizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    blobs: Blobs,
    limits: Limits,
    decoders: Decoders,
    budget: Budget,
    permits: Semaphore,
    under_way: Mutex<HashMap<(ImageId, String), Making>>,
    /// Product and uploaded original of each image; both are immutable.
    origins: Cache<ImageId, Origin>,
    /// Blob of each variant, and the blob that it was made from.
    made: Cache<(ImageId, String), (BlobKey, BlobKey)>,
}

type Making = Shared<BoxFuture<'static, Result<BlobKey, Arc<Error>>>>;

/// Why a variant was not returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The blob store failed.
    #[error(transparent)]
    Storage(#[from] blobs::Error),
    /// The image is not processed yet.
    #[error("the image is not processed yet; retry later")]
    Pending,
    /// No stored blob of the image can serve as a source.
    #[error("the image has no stored file to make a variant from")]
    Nothing,
    /// Too many variants are being made.
    #[error("too many variants are being made; retry later")]
    Overloaded,
    /// The image cannot be decoded within the limits.
    #[error("{message}")]
    Image {
        /// Error code.
        code: ErrorCode,
        /// Error message.
        message: String,
    },
    /// Making the variant failed unexpectedly.
    #[error("making the variant failed")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Maximum number of variants being made; further requests fail with [`Error::Overloaded`].
const MAX_IN_FLIGHT: usize = 64;
/// Maximum cache entries, some 200 bytes each.
const MAX_CACHED_VARIANTS: u64 = 20_000;
/// Lifetime of a cache entry: the database may have evicted the variant meanwhile.
const VARIANT_LIFETIME: Duration = Duration::from_secs(600);

impl Resizer {
    /// Creates a resizer with its own memory budget.
    pub fn new(config: ResizeConfig, catalog: Catalog, blobs: Blobs) -> Self {
        // The source may be a rendition, so its size in bytes is no limit for the variant.
        let limits = Limits { max_rendition: Some(u64::MAX), ..config.limits };
        Self(Arc::new(Inner {
            catalog,
            blobs,
            limits,
            decoders: Decoders::new(&config.isolation),
            budget: Budget::new(config.memory),
            permits: Semaphore::new(config.decoders.max(1)),
            under_way: Mutex::default(),
            origins: Cache::new(MAX_CACHED_VARIANTS),
            made: Cache::builder().max_capacity(MAX_CACHED_VARIANTS).time_to_live(VARIANT_LIFETIME).build(),
        }))
    }

    /// Returns the blob of a variant of `image`; makes it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Catalog`] if the image does not exist, [`Error::Pending`] if it is not processed yet, [`Error::Overloaded`]
    /// if too many variants are being made.
    pub async fn form(&self, image: ImageId, options: &Options, format: OutputFormat) -> Result<BlobKey, Arc<Error>> {
        let (stored, source) = self.source(image, options).await.map_err(Arc::new)?;
        let wanted = (image, options.name(format));
        if let Some((from, made)) = self.0.made.get(&wanted)
            && from == source
        {
            return Ok(made);
        }
        let making = self.making(wanted, options.clone(), format, source, stored)?;
        making.await
    }

    /// Removes a variant from the cache; the next request looks it up or makes it again.
    pub fn discard(&self, image: ImageId, options: &Options, format: OutputFormat) {
        self.0.made.invalidate(&(image, options.name(format)));
    }

    /// Returns the image and its smallest blob with enough pixels.
    async fn source(&self, image: ImageId, options: &Options) -> Result<(Stored, BlobKey), Error> {
        let origin = match self.0.origins.get(&image) {
            Some(origin) => origin,
            None => {
                let origin = self.0.catalog.origin_of(image).await?;
                self.0.origins.insert(image, origin.clone());
                origin
            }
        };
        let stored = self.0.catalog.image(origin.product, image).await?;
        match best_source(&stored, origin.original.as_ref(), options) {
            Some(key) => Ok((stored, key)),
            None if stored.status.is_final() => Err(Error::Nothing),
            None => Err(Error::Pending),
        }
    }

    fn making(
        &self,
        wanted: (ImageId, String),
        options: Options,
        format: OutputFormat,
        source: BlobKey,
        stored: Stored,
    ) -> Result<Making, Arc<Error>> {
        let mut under_way = self.0.under_way.lock();
        if let Some(making) = under_way.get(&wanted) {
            return Ok(making.clone());
        }
        if under_way.len() >= MAX_IN_FLIGHT {
            return Err(Arc::new(Error::Overloaded));
        }
        let (resizer, key) = (self.clone(), wanted.clone());
        // A separate task: it completes even if all clients disconnect.
        let task = tokio::spawn(async move {
            let outcome = resizer.find_or_make(&key, &options, format, &source, stored.id).await;
            if let Ok(made) = &outcome {
                resizer.0.made.insert(key.clone(), (source, made.clone()));
            }
            resizer.0.under_way.lock().remove(&key);
            outcome.map_err(Arc::new)
        });
        let broken = |error| Err(Arc::new(Error::Broken(Box::new(error))));
        let making = async move { task.await.unwrap_or_else(broken) }.boxed().shared();
        under_way.insert(wanted, making.clone());
        Ok(making)
    }

    async fn find_or_make(
        &self,
        (image, name): &(ImageId, String),
        options: &Options,
        format: OutputFormat,
        source: &BlobKey,
        id: ImageId,
    ) -> Result<BlobKey, Error> {
        if let Some(known) = self.0.catalog.variant(*image, name, source).await?
            && self.0.blobs.prove(&known).await?
        {
            return Ok(known);
        }
        let Some(bytes) = self.0.blobs.read_proved(source).await? else {
            // A restored backup may name another original.
            self.0.origins.invalidate(image);
            return Err(Error::Nothing);
        };
        let (bytes, extension) = self.make(bytes, options, format).await?;
        let size = bytes.len() as u64;
        let key = self.0.blobs.put(bytes, extension).await?;
        let new = NewVariant {
            image_id: id,
            name: name.clone(),
            source_key: source.to_string(),
            bytes: size,
            key: key.to_string(),
        };
        self.0.catalog.keep_variant(new).await?;
        metrics::counter!("pm_variants_made_total").increment(1);
        Ok(key)
    }

    async fn make(
        &self,
        source: Bytes,
        options: &Options,
        format: OutputFormat,
    ) -> Result<(Bytes, &'static str), Error> {
        let image = DecodeTask { source, presets: vec![options.preset(format)], limits: self.0.limits.clone() };
        let needed = self.0.decoders.memory_needed(&image).await.map_err(undecodable)?;
        let charge = self.0.budget.charge(needed).await.ok_or_else(|| Error::Image {
            code: ErrorCode::TooComplex,
            message: format!("the variant needs {} MiB of memory, more than the limit", needed >> 20),
        })?;
        // The semaphore is never closed.
        let permit = self.0.permits.acquire().await.ok();
        let processed = self.0.decoders.process(image, needed, charge).await.map_err(undecodable)?;
        drop(permit);
        let made = processed.renditions.into_iter().next().ok_or(Error::Nothing)?;
        Ok((made.bytes.clone().into(), made.extension()))
    }
}

fn undecodable(error: isolation::Error) -> Error {
    if error.is_transient() {
        return Error::Broken(Box::new(error));
    }
    Error::Image { code: error.code(), message: error.to_string() }
}

/// Returns the best source: the smallest uncropped rendition or original with enough pixels, or the largest.
fn best_source(stored: &Stored, original: Option<&BlobKey>, options: &Options) -> Option<BlobKey> {
    let (width, height) = stored.size?;
    let whole = |across: u32, down: u32| {
        let odd = (u64::from(across) * u64::from(height)).abs_diff(u64::from(down) * u64::from(width));
        odd <= u64::from(width.max(height))
    };
    let forms = stored.forms.iter().filter(|form| whole(form.width, form.height));
    let mut sources: Vec<_> = forms.map(|form| (form.width, &form.key)).collect();
    sources.extend(original.map(|key| (width, key)));
    sources.sort_by_key(|(across, _)| *across);
    let needed = needed_width(width, height, options);
    let enough = sources.iter().find(|(across, _)| *across >= needed);
    enough.or(sources.last()).map(|(_, key)| (*key).clone())
}

/// Returns the width of the whole image at the requested scale, at most its own width.
fn needed_width(width: u32, height: u32, options: &Options) -> u32 {
    let (across, down) = options.sides();
    let across = across.map(|side| f64::from(side) / f64::from(width));
    let down = down.map(|side| f64::from(side) / f64::from(height));
    let scale = match (across, down, options.fit) {
        (Some(across), Some(down), Fit::Contain) => across.min(down),
        (Some(across), Some(down), _) => across.max(down),
        (one, other, _) => one.or(other).unwrap_or(1.0),
    };
    // The cast saturates. Images are never enlarged.
    (f64::from(width) * scale.min(1.0)).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Form, domain::ImageStatus};

    fn key(name: &str) -> BlobKey {
        BlobKey::for_bytes(name.as_bytes(), "jpg").expect("a known extension")
    }

    fn image(forms: &[(&str, u32, u32)]) -> Stored {
        let forms = forms.iter().map(|(name, width, height)| Form {
            preset: (*name).to_owned(),
            width: *width,
            height: *height,
            key: key(name),
        });
        Stored {
            id: ImageId(7),
            status: ImageStatus::Ready,
            size: Some((4000, 3000)),
            thumbhash: None,
            forms: forms.collect(),
        }
    }

    fn best(stored: &Stored, options: &str) -> Option<BlobKey> {
        best_source(stored, None, &Options::parse(options).expect("options"))
    }

    #[test]
    fn a_variant_is_made_from_the_smallest_uncropped_source_with_enough_pixels() {
        let stored = image(&[("large", 2048, 1536), ("square", 512, 512), ("small", 512, 384)]);
        assert_eq!(best(&stored, "w=512"), Some(key("small")));
        assert_eq!(best(&stored, "w=500,h=500"), Some(key("small")), "it is 500 across");
        assert_eq!(best(&stored, "w=500,h=500,fit=cover"), Some(key("large")), "500 down are 667 across");
        assert_eq!(best(&stored, "w=4000"), Some(key("large")), "there is no larger one");
        assert_eq!(best(&image(&[("square", 512, 512)]), "w=10"), None, "its edges are missing");
    }

    #[test]
    fn the_original_is_read_if_the_renditions_are_too_small() {
        let (stored, upload) = (image(&[("large", 2048, 1536)]), key("upload").as_original());
        let best = |options: &str| best_source(&stored, Some(&upload), &Options::parse(options).expect("options"));
        assert_eq!(best("w=2049"), Some(upload.clone()));
        assert_eq!(best("w=2048"), Some(key("large")));
    }
}
