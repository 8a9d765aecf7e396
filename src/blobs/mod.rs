//! The store of picture bytes, on disk or on S3, under keys that are made from the bytes themselves.
//!
//! A blob is written as a whole or not at all, never changed afterwards, and a key that is not well-formed never
//! reaches the store. What refers to a blob, and when nothing does any more, is not known here.

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
    Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutOptions, path::Path,
};

pub use engine::{Engine, S3Options};
pub use error::Error;
pub use examine::{State, Unfinished};
pub use key::BlobKey;
pub use marker::{MARKER, Marker};
pub use staged::Staged;

/// A blob that is stored longer than this is written again when it is put again, which renews its `modified` time.
/// Whoever deletes blobs that nothing refers to must leave alone what is younger than twice this.
pub const RENEWED_AFTER: Duration = Duration::from_secs(3_600);

/// Hashing less than this on the async thread is quicker than moving it to another.
const HASHED_INLINE_BYTES: usize = 64 * 1024;

/// The store; clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Present where the store is a directory.
    folders: Option<Arc<disk::Folders>>,
    /// Whether the store's marker was seen.
    marked: Arc<AtomicBool>,
}

/// A blob that is being read.
pub struct Blob {
    /// Bytes of the whole blob.
    pub size: u64,
    /// Which of them the stream yields.
    pub range: Range<u64>,
    /// When it was stored, or last put again.
    pub modified: SystemTime,
    /// The bytes, in pieces.
    pub stream: BoxStream<'static, Result<Bytes, Error>>,
}

/// A blob as [`Blobs::list`] finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: BlobKey,
    /// Its bytes.
    pub size: u64,
    /// When it was stored, or last put again.
    pub modified: SystemTime,
}

impl Blobs {
    /// Opens the store. A directory that is missing is made; S3 is not contacted yet, see [`check`](Self::check).
    ///
    /// # Errors
    /// [`Error::Misconfigured`] if the settings cannot work, the disk's error if the directory cannot be made.
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

    /// `disk` or `s3`.
    pub const fn name(&self) -> &'static str {
        if self.folders.is_some() { "disk" } else { "s3" }
    }

    /// Stores `bytes` under the key they give; `extension` is one of [`BlobKey`]'s list.
    ///
    /// When it returns the blob is on stable storage. A young blob is read and compared, and written again only if its bytes
    /// differ: its size says nothing. One that is older than [`RENEWED_AFTER`] is written again in any case.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`], or [`Error::UnknownExtension`].
    pub async fn put(&self, bytes: Bytes, extension: &str) -> Result<BlobKey, Error> {
        let key = key_for(bytes.clone(), extension).await?;
        self.put_at(&key, bytes).await?;
        Ok(key)
    }

    /// Stores `bytes` as [`put`](Self::put) does, as an uploaded original.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_original(&self, bytes: Bytes, extension: &str) -> Result<BlobKey, Error> {
        let key = key_for(bytes.clone(), extension).await?.as_original();
        self.put_at(&key, bytes).await?;
        Ok(key)
    }

    /// Stores `bytes` under `key`, which must be made from them.
    async fn put_at(&self, key: &BlobKey, bytes: Bytes) -> Result<(), Error> {
        if !self.holds(key, &bytes).await? {
            self.store.put_opts(&path(key), bytes.into(), self.put_options(key)).await.map_err(Error::of_store)?;
        }
        match &self.folders {
            Some(folders) => folders.make_durable(key).await,
            None => Ok(()),
        }
    }

    /// The whole blob, or `None` if there is no such one. Its bytes are not proved, see [`read_proved`](Self::read_proved).
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn read(&self, key: &BlobKey) -> Result<Option<Bytes>, Error> {
        let Some(found) = present(self.store.get(&path(key)).await)? else { return Ok(None) };
        found.bytes().await.map(Some).map_err(Error::of_store)
    }

    /// Opens a blob for reading in pieces: all of it or the part of `range` that it has; `None` if there is no such
    /// blob.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if it has no byte of `range`; [`Error::Unavailable`].
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
        Ok(Some(Blob {
            size: found.meta.size,
            range: found.range.clone(),
            modified: found.meta.last_modified.into(),
            stream: found.into_stream().map_err(Error::of_store).boxed(),
        }))
    }

    /// Whether the blob is stored.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn exists(&self, key: &BlobKey) -> Result<bool, Error> {
        Ok(self.meta(key).await?.is_some())
    }

    /// Proves by its SHA-256 that a blob is whole and keeps it from removal, before something refers to it again; `false` if
    /// it is missing or damaged and has to be made again. A young blob is read a piece at a time, an old one is written again.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`].
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

    /// Deletes a blob; one that is not there is deleted already.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete(&self, key: &BlobKey) -> Result<(), Error> {
        present(self.store.delete(&path(key)).await).map(|_| ())
    }

    /// Every blob, in no order. What is not a blob, such as the unfinished file of a process that was killed, is left
    /// out.
    pub fn list(&self) -> BoxStream<'static, Result<Listed, Error>> {
        let found = self.store.list(None).map_err(Error::of_store);
        found.try_filter_map(|meta| async move { Ok(listed(&meta)) }).boxed()
    }

    /// Removes the unfinished files that processes left behind when they were killed, if they are older than `age`, and
    /// says how many there were. S3 keeps none. `age` must be longer than any write takes.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remove_unfinished(&self, age: Duration) -> Result<u64, Error> {
        match &self.folders {
            Some(folders) => folders.remove_unfinished(age).await,
            None => Ok(0),
        }
    }

    /// Whether the store answers, and on a disk takes new files. Costs one empty file, or one listing of nothing.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn check(&self) -> Result<(), Error> {
        if let Some(folders) = &self.folders {
            return folders.check().await;
        }
        // No key sorts after this one, and unlike the look-up of one key a listing tells a missing bucket.
        self.store.list_with_offset(None, &Path::from("~")).try_next().await.map(|_| ()).map_err(Error::of_store)
    }

    /// Whether the store has exactly these bytes in a young blob.
    async fn holds(&self, key: &BlobKey, bytes: &Bytes) -> Result<bool, Error> {
        let Some(meta) = self.meta(key).await? else { return Ok(false) };
        if meta.size != bytes.len() as u64 || !is_young(&meta) {
            return Ok(false);
        }
        let Some(mut blob) = self.open(key, None).await? else { return Ok(false) };
        let mut left = &bytes[..];
        // A blob that cannot be read to its end is damaged: it is written again, and that says if the store is away.
        while let Some(Ok(piece)) = blob.stream.next().await {
            match left.strip_prefix(&piece[..]) {
                Some(rest) => left = rest,
                None => return Ok(false),
            }
        }
        Ok(left.is_empty())
    }

    /// Whether a blob of this size is stored, need not be renewed, and is what its key says.
    async fn is_young_and_whole(&self, key: &BlobKey, size: u64) -> Result<bool, Error> {
        let Some(meta) = self.meta(key).await? else { return Ok(false) };
        Ok(meta.size == size && is_young(&meta) && matches!(self.examine(key).await?, State::Whole { .. }))
    }

    async fn meta(&self, key: &BlobKey) -> Result<Option<ObjectMeta>, Error> {
        present(self.store.head(&path(key)).await)
    }

    fn put_options(&self, key: &BlobKey) -> PutOptions {
        // A file has no place for attributes, and the store refuses them there.
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
