//! The marker file `installation.json`: says which installation owns a blob store. It is no blob, and no route serves
//! it.

use std::sync::atomic::Ordering;

use object_store::{ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Blobs, Error, present};
use crate::domain::InstallationId;

/// Name of the marker file.
pub const MARKER: &str = "installation.json";

/// Content of the marker file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Installation that owns the blobs.
    pub installation: InstallationId,
    /// Id of the store. The database stores it too, so a copy of the database alone, or another directory, does not
    /// match.
    pub store: String,
    /// Whether the installation will be deleted and releases the store to the next one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

impl Marker {
    /// Creates the marker of a new store.
    pub fn new(installation: InstallationId) -> Self {
        Self { installation, store: Uuid::new_v4().simple().to_string(), released: false }
    }

    /// Returns the marker after another installation takes over the store. All its processes compute the same marker.
    pub fn owned_by(&self, installation: InstallationId) -> Self {
        Self { store: successor(&self.store, &installation), installation, released: false }
    }

    /// Returns whether this marker results from taking over the store with id `store`.
    pub fn succeeds(&self, store: &str) -> bool {
        self.store == successor(store, &self.installation)
    }
}

impl Blobs {
    /// Returns the store's marker; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Misconfigured`] if the file is no valid marker.
    pub async fn marker(&self) -> Result<Option<Marker>, Error> {
        let Some(found) = present(self.store.get(&Path::from(MARKER)).await)? else { return Ok(None) };
        let bytes = found.bytes().await.map_err(Error::of_store)?;
        let marker = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Misconfigured(format!("the file {MARKER} is damaged: {error}").into()))?;
        self.marked.store(true, Ordering::Relaxed);
        Ok(Some(marker))
    }

    /// Checks that the store still has its marker, before a missing blob is considered lost: an unmounted disk has no
    /// blobs either.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the marker has disappeared.
    pub async fn ensure_there(&self) -> Result<(), Error> {
        if self.marked.load(Ordering::Relaxed) && self.marker().await?.is_none() {
            return Err(Error::Unavailable(
                format!("the blob store has lost its file {MARKER}; is it mounted?").into(),
            ));
        }
        Ok(())
    }

    /// Marks a store that has no marker; returns `false` if it has one by now.
    pub async fn mark_first(&self, marker: &Marker) -> Result<bool, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&Path::from(MARKER), payload(marker)?, options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
            Err(error) => return Err(Error::of_store(error)),
        }
        // Read it back: a server without conditional writes may have let another process overwrite it.
        Ok(self.marker().await?.as_ref() == Some(marker))
    }

    /// Marks the store, replacing its marker.
    pub async fn mark(&self, marker: &Marker) -> Result<(), Error> {
        self.store.put(&Path::from(MARKER), payload(marker)?).await.map(|_| ()).map_err(Error::of_store)
    }

    /// Deletes the marker, so that another installation can use the store.
    pub async fn unmark(&self) -> Result<(), Error> {
        self.marked.store(false, Ordering::Relaxed);
        present(self.store.delete(&Path::from(MARKER)).await).map(|_| ())
    }
}

/// Returns the store's id after `installation` has claimed it.
fn successor(store: &str, installation: &InstallationId) -> String {
    let digest = Sha256::digest(format!("{store} {installation}"));
    hex::encode(&digest[..16])
}

fn payload(marker: &Marker) -> Result<PutPayload, Error> {
    let text = serde_json::to_string_pretty(marker).map_err(|error| Error::Misconfigured(Box::new(error)))?;
    Ok(PutPayload::from(text + "\n"))
}
