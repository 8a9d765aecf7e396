//! The file in a store that says whose it is: `installation.json`. It is no blob, and no route serves it.

use std::sync::atomic::Ordering;

use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Blobs, Error, present};
use crate::domain::InstallationId;

/// The marker's name in the store.
pub const MARKER: &str = "installation.json";

/// Whose a store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The installation that the blobs belong to.
    pub installation: InstallationId,
    /// The store's own id, which the installation's database names as well: a copy of the database alone, or another
    /// directory, does not fit.
    pub store: String,
    /// Whether the installation is about to be deleted and leaves the store to the next one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

impl Marker {
    /// A marker for a store that has none yet.
    pub fn new(installation: InstallationId) -> Self {
        Self { installation, store: Uuid::new_v4().simple().to_string(), released: false }
    }

    /// Returns the marker of this store once another installation takes it: every process of that one makes the same.
    pub fn taken_by(&self, installation: InstallationId) -> Self {
        Self { store: successor(&self.store, &installation), installation, released: false }
    }

    /// Whether the marker is what its installation made of the marker of `store` when it took the store.
    pub fn succeeds(&self, store: &str) -> bool {
        self.store == successor(store, &self.installation)
    }
}

impl Blobs {
    /// The store's marker; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Misconfigured`] if the file is no marker.
    pub async fn marker(&self) -> Result<Option<Marker>, Error> {
        let Some(found) = present(self.store.get(&Path::from(MARKER)).await)? else { return Ok(None) };
        let bytes = found.bytes().await.map_err(Error::of_store)?;
        let marker = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Misconfigured(format!("its file {MARKER} is damaged: {error}").into()))?;
        self.marked.store(true, Ordering::Relaxed);
        Ok(Some(marker))
    }

    /// Makes sure that the store still has its marker, before a blob that it lacks is believed to be lost: a disk that is not
    /// mounted has no blobs either.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the marker was there and is gone.
    pub async fn ensure_there(&self) -> Result<(), Error> {
        if self.marked.load(Ordering::Relaxed) && self.marker().await?.is_none() {
            return Err(Error::Unavailable(format!("the store has lost its file {MARKER}; is it mounted?").into()));
        }
        Ok(())
    }

    /// Marks a store that has no marker; `false` if it has one by now.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`].
    pub async fn mark_first(&self, marker: &Marker) -> Result<bool, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&Path::from(MARKER), payload(marker)?, options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
            Err(error) => return Err(Error::of_store(error)),
        }
        // A server that does not know conditional writes would have let a later process overwrite the marker.
        Ok(self.marker().await?.as_ref() == Some(marker))
    }

    /// Marks the store, whatever its marker said.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Unavailable`].
    pub async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        self.store.put(&Path::from(MARKER), payload(marker)?).await.map(|_| ()).map_err(Error::of_store)
    }

    /// Removes the marker, so that another installation can have the store.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unmark(&self) -> Result<(), Error> {
        self.marked.store(false, Ordering::Relaxed);
        present(self.store.delete(&Path::from(MARKER)).await).map(|_| ())
    }
}

/// The id of a store once `installation` has taken it.
fn successor(store: &str, installation: &InstallationId) -> String {
    let digest = Sha256::digest(format!("{store} {installation}"));
    hex::encode(&digest[..16])
}

fn payload(marker: &Marker) -> Result<PutPayload, Error> {
    let text = serde_json::to_string_pretty(marker).map_err(|error| Error::Misconfigured(Box::new(error)))?;
    Ok(PutPayload::from(text + "\n"))
}
