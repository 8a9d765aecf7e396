//! Forms of pictures that are made when somebody asks for them by a signed address: from what is stored already, once however
//! many ask at the same moment, and then kept. Nothing is fetched.

mod options;
mod signature;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use moka::sync::Cache;
use tokio::sync::Semaphore;

pub use options::{MAX_SIDE, Options};
pub use signature::UrlKeys;

use crate::{
    blobs::{self, BlobKey, Blobs},
    catalog::{self, Catalog, NewVariant, Origin, Picture as Stored},
    code::ErrorCode,
    domain::ImageId,
    imaging::{Fit, Limits, OutputFormat},
    isolation::{self, Budget, Decoders, Picture},
};

/// What a resizer works with.
#[derive(Clone, Debug)]
pub struct ResizeConfig {
    /// What is refused before it is decoded.
    pub limits: Limits,
    /// Bytes that everything in the making shares.
    pub memory: u64,
    /// Forms that are made at the same time.
    pub decoders: usize,
    /// Where pictures are decoded.
    pub isolation: isolation::Config,
}

impl Default for ResizeConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self { memory: limits.max_memory, limits, decoders: 1, isolation: isolation::Config::default() }
    }
}

/// Makes forms on demand; cheap to clone.
#[derive(Clone, Debug)]
pub struct Resizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    blobs: Blobs,
    limits: Limits,
    decoders: Decoders,
    budget: Budget,
    seats: Semaphore,
    under_way: Mutex<HashMap<(ImageId, String), Making>>,
    /// The product of an image and its uploaded file, which do not change.
    origins: Cache<ImageId, Origin>,
    /// The blob of a form, and the one it was made from.
    made: Cache<(ImageId, String), (BlobKey, BlobKey)>,
}

type Making = Shared<BoxFuture<'static, Result<BlobKey, Arc<Error>>>>;

/// Why there is no such form.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue could not say or keep something.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The store could not.
    #[error(transparent)]
    Storage(#[from] blobs::Error),
    /// The picture is on its way still.
    #[error("the picture is on its way still")]
    Pending,
    /// Nothing of the picture is stored that a form could be made from.
    #[error("nothing of the picture is stored that another form could be made from")]
    Nothing,
    /// Too much is in the making already.
    #[error("too many forms are in the making already")]
    Busy,
    /// The picture cannot be decoded, or not within the limits.
    #[error("{message}")]
    Picture {
        /// Which.
        code: ErrorCode,
        /// A sentence.
        message: String,
    },
    /// The making broke down.
    #[error("the form was not made")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Forms in the making at a time; whoever asks for one more is sent away.
const MOST_UNDER_WAY: usize = 64;
/// Pictures and forms that are remembered, some 200 bytes each.
const REMEMBERED: u64 = 20_000;
/// A form that is remembered may have been crowded out in the database meanwhile.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

impl Resizer {
    /// A resizer with a budget of its own.
    pub fn new(config: ResizeConfig, catalog: Catalog, blobs: Blobs) -> Self {
        // What a form is made from is a form itself, so its bytes say nothing about those of another size and format.
        let limits = Limits { max_rendition: Some(u64::MAX), ..config.limits };
        Self(Arc::new(Inner {
            catalog,
            blobs,
            limits,
            decoders: Decoders::new(&config.isolation),
            budget: Budget::new(config.memory),
            seats: Semaphore::new(config.decoders.max(1)),
            under_way: Mutex::default(),
            origins: Cache::new(REMEMBERED),
            made: Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build(),
        }))
    }

    /// The blob of the form of `image` that `options` ask for, in `format`; made now if it is not there.
    ///
    /// # Errors
    /// [`Error::Catalog`] if there is no such picture, [`Error::Pending`] if it is not ready, [`Error::Busy`] if too much is
    /// asked for at once.
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

    /// The picture is no longer what it was remembered as: the next one who asks has it looked up, or made, again.
    pub fn forget(&self, image: ImageId, options: &Options, format: OutputFormat) {
        self.0.made.invalidate(&(image, options.name(format)));
    }

    /// The picture, and the smallest blob of it that has the pixels that are asked for.
    async fn source(&self, image: ImageId, options: &Options) -> Result<(Stored, BlobKey), Error> {
        let origin = match self.0.origins.get(&image) {
            Some(origin) => origin,
            None => {
                let origin = self.0.catalog.origin_of(image).await?;
                self.0.origins.insert(image, origin.clone());
                origin
            }
        };
        let stored = self.0.catalog.picture(origin.product, image).await?;
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
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(making) = under_way.get(&wanted) {
            return Ok(making.clone());
        }
        if under_way.len() >= MOST_UNDER_WAY {
            return Err(Arc::new(Error::Busy));
        }
        let (resizer, key) = (self.clone(), wanted.clone());
        // A task of its own: it ends even if everybody who waits for it goes away.
        let task = tokio::spawn(async move {
            let outcome = resizer.find_or_make(&key, &options, format, &source, stored.id).await;
            if let Ok(made) = &outcome {
                resizer.0.made.insert(key.clone(), (source, made.clone()));
            }
            resizer.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
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
            // A restored backup may have another file in its place.
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
        let picture = Picture { source, presets: vec![options.preset(format)], limits: self.0.limits.clone() };
        let needed = self.0.decoders.memory_needed(&picture).await.map_err(undecodable)?;
        let charge = self.0.budget.charge(needed).await.ok_or_else(|| Error::Picture {
            code: ErrorCode::TooComplex,
            message: format!("the form needs {} MiB of memory, more than is spent on one", needed >> 20),
        })?;
        // The semaphore is never closed.
        let seat = self.0.seats.acquire().await.ok();
        let processed = self.0.decoders.process(picture, needed, charge).await.map_err(undecodable)?;
        drop(seat);
        let made = processed.renditions.into_iter().next().ok_or(Error::Nothing)?;
        Ok((made.bytes.clone().into(), made.extension()))
    }
}

fn undecodable(error: isolation::Error) -> Error {
    if error.is_transient() {
        return Error::Broken(Box::new(error));
    }
    Error::Picture { code: error.code(), message: error.to_string() }
}

/// Forms that show the whole picture, and the file it was made from if that is stored: the smallest with enough pixels, or
/// the largest of all.
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

/// The width that the whole picture has at the scale that is asked for; never more than it has.
fn needed_width(width: u32, height: u32, options: &Options) -> u32 {
    let (across, down) = options.sides();
    let across = across.map(|side| f64::from(side) / f64::from(width));
    let down = down.map(|side| f64::from(side) / f64::from(height));
    let scale = match (across, down, options.fit) {
        (Some(across), Some(down), Fit::Contain) => across.min(down),
        (Some(across), Some(down), _) => across.max(down),
        (one, other, _) => one.or(other).unwrap_or(1.0),
    };
    // Saturates; a picture is never enlarged.
    (f64::from(width) * scale.min(1.0)).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Form, domain::ImageStatus};

    fn key(name: &str) -> BlobKey {
        BlobKey::for_bytes(name.as_bytes(), "jpg").expect("a known extension")
    }

    fn picture(forms: &[(&str, u32, u32)]) -> Stored {
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
    fn a_form_is_made_from_the_smallest_whole_one_that_has_enough_pixels() {
        let stored = picture(&[("large", 2048, 1536), ("square", 512, 512), ("small", 512, 384)]);
        assert_eq!(best(&stored, "w=512"), Some(key("small")));
        assert_eq!(best(&stored, "w=500,h=500"), Some(key("small")), "it is 500 across");
        assert_eq!(best(&stored, "w=500,h=500,fit=cover"), Some(key("large")), "500 down are 667 across");
        assert_eq!(best(&stored, "w=4000"), Some(key("large")), "there is no larger one");
        assert_eq!(best(&picture(&[("square", 512, 512)]), "w=10"), None, "its edges are missing");
    }

    #[test]
    fn an_uploaded_file_is_read_where_the_forms_are_too_small() {
        let (stored, upload) = (picture(&[("large", 2048, 1536)]), key("upload").as_original());
        let best = |options: &str| best_source(&stored, Some(&upload), &Options::parse(options).expect("options"));
        assert_eq!(best("w=2049"), Some(upload.clone()));
        assert_eq!(best("w=2048"), Some(key("large")));
    }
}
