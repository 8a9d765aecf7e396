//! Looking at stored blobs: whether one is there, how old it is, whether its bytes are what its key says; and copying one to
//! another store. It mends nothing.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use super::{BlobKey, Blobs, Error, Listed, key_for, listed};

/// What a look at a blob's bytes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is what its key says.
    Whole {
        /// How many bytes it has.
        bytes: u64,
    },
    /// Its SHA-256 is another than its key's, or the disk cannot read it.
    Damaged,
    /// There is no such blob.
    Missing,
}

/// Unfinished files that processes left behind when they were killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// How many there are.
    pub count: u64,
    /// The names of some.
    pub examples: Vec<String>,
}

impl Blobs {
    /// The blob's size and age, or `None` if there is no such one. Its bytes are not read.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn find(&self, key: &BlobKey) -> Result<Option<Listed>, Error> {
        Ok(self.meta(key).await?.as_ref().and_then(listed))
    }

    /// Reads the blob, a piece at a time, and compares it with its key.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
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

    /// The whole blob, its bytes proved by its key; `None` if there is no such one.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its SHA-256 is another than its key's; [`Error::Unavailable`].
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

    /// Copies the blob to `target`, as [`put`](Self::put) does, if it is what its key says. It is in memory meanwhile.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`] by either store.
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

    /// The unfinished files that are older than `age`, with up to `most` names. S3 keeps none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unfinished(&self, age: Duration, most: usize) -> Result<Unfinished, Error> {
        match &self.folders {
            Some(folders) => folders.unfinished(age, most).await,
            None => Ok(Unfinished::default()),
        }
    }
}
