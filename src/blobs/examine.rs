//! Inspects stored blobs: existence, age and integrity. Also copies a blob to another store. It repairs nothing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use super::{BlobKey, Blobs, Error, Listed, key_for, listed};

/// Result of examining a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The bytes match the key.
    Whole {
        /// Size in bytes.
        bytes: u64,
    },
    /// The SHA-256 differs from the key, or the disk cannot read the bytes.
    Damaged,
    /// The blob does not exist.
    Missing,
}

/// Unfinished files of killed processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Number of files.
    pub count: u64,
    /// Names of some of them.
    pub examples: Vec<String>,
}

impl Blobs {
    /// Returns the blob's size and age without reading it, or `None` if it does not exist.
    pub async fn find(&self, key: &BlobKey) -> Result<Option<Listed>, Error> {
        Ok(self.meta(key).await?.as_ref().and_then(listed))
    }

    /// Streams the blob and compares its SHA-256 with its key.
    pub async fn examine(&self, key: &BlobKey) -> Result<State, Error> {
        let Some(mut blob) = self.open(key, None).await? else { return Ok(State::Missing) };
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        loop {
            match blob.stream.try_next().await {
                Ok(Some(piece)) => {
                    hash.update(&piece);
                    bytes += piece.len() as u64;
                }
                Ok(None) => break,
                Err(error) if error.is_bad_medium() => return Ok(State::Damaged),
                Err(error) => return Err(error),
            }
        }
        let whole = hex::encode(hash.finalize()) == key.sha256();
        Ok(if whole { State::Whole { bytes } } else { State::Damaged })
    }

    /// Returns the whole blob with verified bytes; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the SHA-256 differs from the key's; [`Error::Unavailable`].
    pub async fn read_proved(&self, key: &BlobKey) -> Result<Option<Bytes>, Error> {
        let bytes = match self.read(key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) if error.is_bad_medium() => return Err(Error::Damaged { key: key.clone() }),
            Err(error) => return Err(error),
        };
        if key_for(bytes.clone(), key.extension()).await?.sha256() != key.sha256() {
            return Err(Error::Damaged { key: key.clone() });
        }
        Ok(Some(bytes))
    }

    /// Copies an intact blob to `target`, like [`put`](Self::put). Holds the blob in memory.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`] from either store.
    pub async fn copy_to(&self, key: &BlobKey, target: &Self) -> Result<State, Error> {
        let bytes = match self.read_proved(key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(State::Missing),
            Err(Error::Damaged { .. }) => return Ok(State::Damaged),
            Err(error) => return Err(error),
        };
        let size = Bytes::len(&bytes) as u64;
        target.put_at(key, bytes).await?;
        Ok(State::Whole { bytes: size })
    }

    /// Returns unfinished files older than `age`, with at most `most` names. S3 has none.
    pub async fn unfinished(&self, age: Duration, most: usize) -> Result<Unfinished, Error> {
        match &self.folders {
            Some(folders) => folders.unfinished(age, most).await,
            None => Ok(Unfinished::default()),
        }
    }
}
