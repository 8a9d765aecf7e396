//! Pins blobs before rows refer to them.
//!
//! `pm gc` may delete a blob between its upload and the transaction that refers to it. A pin detects that.

use std::time::Duration;

use futures_util::future::try_join_all;

use crate::{
    blobs::{self, BlobKey},
    catalog::{Catalog, Error},
    db::{self, Write},
};

/// Limit of the check. Other writers wait for it; on SQLite all of them.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

impl Catalog {
    /// Blocks deletion of blobs until `write` ends, and checks that `keys` exist.
    ///
    /// Call it before the transaction locks any product.
    ///
    /// # Errors
    /// [`Error::BlobGone`] if one does not exist; [`Error::Unavailable`] if the database or the store does not answer.
    pub(super) async fn pin_blobs(&self, write: &Write, keys: &[&str]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        db::refer(write).await?;
        let checks = try_join_all(keys.iter().map(|key| self.is_stored(key)));
        let checked =
            tokio::time::timeout(CHECK_TIMEOUT, checks).await.map_err(|late| Error::unavailable("storage", late))?;
        match keys.iter().zip(checked?).find(|(_, stored)| !stored) {
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
