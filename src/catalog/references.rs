//! Referring to blobs: never to one that is not there. Whoever stored a blob a while ago may find that it was removed before
//! anything referred to it.

use std::time::Duration;

use futures_util::future::try_join_all;

use crate::{
    blobs::{self, BlobKey},
    catalog::{Catalog, Error},
    db::{self, Write},
};

/// Other writers wait for this look, on SQLite all of them.
const LONGEST_LOOK: Duration = Duration::from_secs(3);

impl Catalog {
    /// Keeps blobs from being removed until `write` ends, and makes sure that these are there. Comes before any product is
    /// held.
    ///
    /// # Errors
    /// [`Error::BlobGone`] if one is not there; [`Error::Unavailable`] by the database or the store.
    pub(super) async fn refer_to(&self, write: &Write, keys: &[&str]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        db::refer(write).await?;
        let looks = try_join_all(keys.iter().map(|key| self.is_stored(key)));
        let looked = tokio::time::timeout(LONGEST_LOOK, looks).await.map_err(|late| Error::away("storage", late))?;
        match keys.iter().zip(looked?).find(|(_, stored)| !stored) {
            Some((key, _)) => Err(Error::BlobGone { key: (*key).to_owned() }),
            None => Ok(()),
        }
    }

    async fn is_stored(&self, key: &str) -> Result<bool, blobs::Error> {
        match BlobKey::parse(key) {
            Some(key) => self.0.engines.blobs.exists(&key).await,
            None => Ok(false),
        }
    }
}
