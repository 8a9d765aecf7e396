//! Stores image bytes on disk or S3 under content-addressed keys.
//!
//! A blob is written completely or not at all, and never changes. A malformed key never reaches the store. This module
//! does not know which blobs are referenced.

mod disk;
mod engine;
mod error;
mod examine;
mod key;
mod marker;
mod staged;

use std::{
    fmt,
    ops::Range,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt, PutOptions,
    path::Path,
};

pub use engine::{Engine, S3Options};
pub use error::Error;
pub use examine::{State, Unfinished};
pub use key::BlobKey;
pub use marker::{MARKER, Marker};
pub use staged::Staged;

/// A blob older than this is rewritten when it is put again, which renews its `modified` time. Garbage collection must
/// keep blobs younger than twice this.
pub const RENEWED_AFTER: Duration = Duration::from_secs(3_600);

/// Maximum bytes hashed on the async thread instead of a blocking one.
const HASHED_INLINE_BYTES: usize = 64 * 1024;

/// Handle of the blob store; clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Present if the store is a directory.
    folders: Option<Arc<disk::Folders>>,
    /// Whether the store's marker was read.
    marked: Arc<AtomicBool>,
}

/// A blob opened for reading.
pub struct Blob {
    /// Size of the whole blob, in bytes.
    pub size: u64,
    /// Range of bytes that the stream yields.
    pub range: Range<u64>,
    /// Time when it was stored or last put again.
    pub modified: SystemTime,
    /// The bytes in chunks.
    pub stream: BoxStream<'static, Result<Bytes, Error>>,
}

/// An entry of [`Blobs::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Key.
    pub key: BlobKey,
    /// Size in bytes.
    pub size: u64,
    /// Time when it was stored or last put again.
    pub modified: SystemTime,
}

impl Blobs {
    /// Opens the store; creates a missing directory. It does not contact S3, see [`check`](Self::check).
    ///
    /// # Errors
    /// [`Error::Misconfigured`] if the settings are invalid, [`Error::Unavailable`] or [`Error::Full`] if the directory
    /// cannot be created.
    pub async fn connect(engine: &Engine) -> Result<Self, Error> {
        match engine {
            Engine::Disk { directory } => {
                let (store, folders) = disk::open(directory.clone()).await?;
                Ok(Self { store: Arc::new(store), folders: Some(Arc::new(folders)), marked: Arc::default() })
            }
            Engine::S3 { bucket, prefix, options } => {
                let store = engine::open_s3(bucket, prefix, options)?;
                Ok(Self { store, folders: None, marked: Arc::default() })
            }
        }
    }

    /// Returns `disk` or `s3`.
    pub const fn name(&self) -> &'static str {
        if self.folders.is_some() { "disk" } else { "s3" }
    }

    /// Stores `bytes` under their content-addressed key; `extension` is one of [`BlobKey`]'s list.
    ///
    /// When it returns, the blob is on stable storage. An existing blob is compared byte by byte and rewritten if it
    /// differs, because its size proves nothing. A blob older than [`RENEWED_AFTER`] is always rewritten.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`], or [`Error::UnknownExtension`].
    pub async fn put(&self, bytes: Bytes, extension: &str) -> Result<BlobKey, Error> {
        let key = key_for(bytes.clone(), extension).await?;
        self.put_at(&key, bytes).await?;
        Ok(key)
    }

    /// Stores `bytes` as an uploaded original; otherwise like [`put`](Self::put).
    pub async fn put_original(&self, bytes: Bytes, extension: &str) -> Result<BlobKey, Error> {
        let key = key_for(bytes.clone(), extension).await?.as_original();
        self.put_at(&key, bytes).await?;
        Ok(key)
    }

    /// Stores `bytes` under `key`, which must match them.
    async fn put_at(&self, key: &BlobKey, bytes: Bytes) -> Result<(), Error> {
        if !self.holds(key, &bytes).await? {
            self.store.put_opts(&path(key), bytes.into(), self.put_options(key)).await.map_err(Error::of_store)?;
        }
        match &self.folders {
            Some(folders) => folders.make_durable(key).await,
            None => Ok(()),
        }
    }

    /// Returns the whole blob, or `None` if it does not exist. It does not verify the bytes, see
    /// [`read_proved`](Self::read_proved).
    pub async fn read(&self, key: &BlobKey) -> Result<Option<Bytes>, Error> {
        let Some(found) = present(self.store.get(&path(key)).await)? else { return Ok(None) };
        found.bytes().await.map(Some).map_err(Error::of_store)
    }

    /// Opens a blob, or the part of `range` that exists, for streaming; returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the blob has no byte of `range`; [`Error::Unavailable`].
    pub async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<Blob>, Error> {
        let mut options = GetOptions::default();
        if let Some(range) = range {
            let Some(meta) = self.meta(key).await? else { return Ok(None) };
            let end = range.end.min(meta.size);
            if range.start >= end {
                return Err(Error::OutOfRange { size: meta.size });
            }
            options.range = Some(GetRange::Bounded(range.start..end));
        }
        let Some(found) = present(self.store.get_opts(&path(key), options).await)? else { return Ok(None) };
        let (size, range, modified) = (found.meta.size, found.range.clone(), found.meta.last_modified.into());
        let stream = match found.payload {
            GetResultPayload::File(file, _) => disk::pieces(file, range.clone()).boxed(),
            _ => found.into_stream().map_err(Error::of_store).boxed(),
        };
        Ok(Some(Blob { size, range, modified, stream }))
    }

    /// Returns whether the blob exists.
    pub async fn exists(&self, key: &BlobKey) -> Result<bool, Error> {
        Ok(self.meta(key).await?.is_some())
    }

    /// Verifies a blob by its SHA-256 and protects it from garbage collection, before it is referenced again.
    ///
    /// Returns `false` if it is missing or damaged and must be made again. A young blob is streamed; an old one is
    /// rewritten.
    pub async fn prove(&self, key: &BlobKey) -> Result<bool, Error> {
        let Some(meta) = self.meta(key).await? else { return Ok(false) };
        if is_young(&meta) {
            return Ok(matches!(self.examine(key).await?, State::Whole { .. }));
        }
        match self.read_proved(key).await {
            Ok(Some(bytes)) => self.put_at(key, bytes).await.map(|()| true),
            Ok(None) | Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a blob; succeeds if it does not exist.
    pub async fn delete(&self, key: &BlobKey) -> Result<(), Error> {
        present(self.store.delete(&path(key)).await).map(|_| ())
    }

    /// Lists every blob in no order. It skips other files, such as unfinished files of killed processes.
    pub fn list(&self) -> BoxStream<'static, Result<Listed, Error>> {
        let found = self.store.list(None).map_err(Error::of_store);
        found.try_filter_map(|meta| async move { Ok(listed(&meta)) }).boxed()
    }

    /// Deletes unfinished files of killed processes that are older than `age`; returns their number. S3 has none. `age`
    /// must exceed the time of any write.
    pub async fn remove_unfinished(&self, age: Duration) -> Result<u64, Error> {
        match &self.folders {
            Some(folders) => folders.remove_unfinished(age).await,
            None => Ok(0),
        }
    }

    /// Checks that the store responds and, on disk, accepts new files. It costs one empty file or one empty listing.
    ///
    /// # Errors
    /// The reason why it does not.
    pub async fn check(&self) -> Result<(), Error> {
        if let Some(folders) = &self.folders {
            return folders.check().await;
        }
        // No key sorts after `~`. Unlike a lookup, a listing detects a missing bucket.
        self.store.list_with_offset(None, &Path::from("~")).try_next().await.map(|_| ()).map_err(Error::of_store)
    }

    /// Returns whether a young blob has exactly these bytes.
    async fn holds(&self, key: &BlobKey, bytes: &Bytes) -> Result<bool, Error> {
        let Some(meta) = self.meta(key).await? else { return Ok(false) };
        if meta.size != bytes.len() as u64 || !is_young(&meta) {
            return Ok(false);
        }
        let Some(mut blob) = self.open(key, None).await? else { return Ok(false) };
        let mut left = &bytes[..];
        // An unreadable blob counts as different: it is rewritten, and that write reports an unavailable store.
        while let Some(Ok(piece)) = blob.stream.next().await {
            match left.strip_prefix(&piece[..]) {
                Some(rest) => left = rest,
                None => return Ok(false),
            }
        }
        Ok(left.is_empty())
    }

    /// Returns whether a blob of this size is young and intact.
    async fn is_young_and_whole(&self, key: &BlobKey, size: u64) -> Result<bool, Error> {
        let Some(meta) = self.meta(key).await? else { return Ok(false) };
        Ok(meta.size == size && is_young(&meta) && matches!(self.examine(key).await?, State::Whole { .. }))
    }

    async fn meta(&self, key: &BlobKey) -> Result<Option<ObjectMeta>, Error> {
        present(self.store.head(&path(key)).await)
    }

    fn put_options(&self, key: &BlobKey) -> PutOptions {
        // The local store refuses attributes.
        if self.folders.is_some() {
            return PutOptions::default();
        }
        let caching = if key.is_original() { "private, no-store" } else { "public, max-age=31536000, immutable" };
        Attributes::from_iter([(Attribute::ContentType, key.media_type()), (Attribute::CacheControl, caching)]).into()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, range, modified, stream: _ } = self;
        f.debug_struct("Blob")
            .field("size", size)
            .field("range", range)
            .field("modified", modified)
            .finish_non_exhaustive()
    }
}

async fn key_for(bytes: Bytes, extension: &str) -> Result<BlobKey, Error> {
    let small = bytes.len() <= HASHED_INLINE_BYTES;
    let extension = extension.to_owned();
    let make = move || BlobKey::for_bytes(&bytes, &extension).ok_or(Error::UnknownExtension(extension));
    if small { make() } else { tokio::task::spawn_blocking(make).await.map_err(Error::of_task)? }
}

fn is_young(meta: &ObjectMeta) -> bool {
    SystemTime::now().duration_since(meta.last_modified.into()).unwrap_or_default() < RENEWED_AFTER
}

fn path(key: &BlobKey) -> Path {
    Path::from(key.as_str())
}

fn listed(meta: &ObjectMeta) -> Option<Listed> {
    let key = BlobKey::parse(meta.location.as_ref())?;
    Some(Listed { key, size: meta.size, modified: meta.last_modified.into() })
}

/// Turns "not found" into `None`.
fn present<T>(found: object_store::Result<T>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::of_store(error)),
    }
}
