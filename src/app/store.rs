//! Checks that the database and the blob store belong to the same installation.
//!
//! The database contains the id of its blob store. The store's marker contains that id and the installation's id. On a
//! mismatch, pm was started in the wrong directory or with the wrong store URL, and it stops.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::TryStreamExt as _;

use super::{Error, storage_engine};
use crate::{
    blobs::{self, BlobKey, Blobs, MARKER, Marker},
    config::{DatabaseUrl, Settings},
    db::{
        Database,
        connection::installation::{self, Installation},
        maintenance::{
            identity::{self, LockedClaim, StoreClaim},
            schema,
        },
        products::renditions,
    },
    domain::InstallationId,
};

/// Time limit for reading the marker; then the store counts as unavailable.
const MARKER_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the installation's blob store; a new installation takes the configured store.
///
/// The second value is false if the store did not answer; its marker must be compared later.
///
/// # Errors
/// [`Error::ForeignStore`] if the store belongs to another installation.
pub(super) async fn open_store(
    settings: &Settings,
    database: &Database,
    installation: &Installation,
) -> Result<(Blobs, bool), Error> {
    let engine = storage_engine(settings)?;
    if let (blobs::Engine::Disk { directory }, Some(_), false) =
        (&engine, &installation.blob_store, settings.storage_adopt)
        && !tokio::fs::try_exists(directory)
            .await
            .map_err(|source| Error::DataDirectory { path: directory.clone(), source })?
    {
        let found = format!("the directory {} does not exist", absolute(directory).display());
        return Err(foreign(settings, &installation.id, found));
    }
    let store = Blobs::connect(&engine).await?;
    let compared = tokio::time::timeout(MARKER_TIMEOUT, compare_store(settings, database, &store));
    match compared.await {
        Ok(Err(Error::Storage(error))) if error.is_transient() => {
            tracing::warn!(%error, "the blob store does not answer; its marker will be checked once it does");
            Ok((store, false))
        }
        Ok(compared) => compared.map(|()| (store, true)),
        Err(_) => {
            tracing::warn!("the blob store does not answer; its marker will be checked once it does");
            Ok((store, false))
        }
    }
}

/// Compares the store's marker with the database, and marks a new store.
///
/// # Errors
/// [`Error::ForeignStore`], [`Error::CopiedDatabase`] on a mismatch.
pub(super) async fn compare_store(settings: &Settings, database: &Database, store: &Blobs) -> Result<(), Error> {
    let claim = identity::store_claim(&database.read()).await?;
    let marker = store.marker().await?;
    match decide(&claim, marker.as_ref(), &Given::new(settings, None)) {
        Decision::Fits => Ok(()),
        _ => settle_store(settings, database, store, None).await,
    }
}

/// Updates the marker and the database so that they name each other.
///
/// A lock lets one process at a time do this. The process decides again after it has the lock.
async fn settle_store(
    settings: &Settings,
    database: &Database,
    store: &Blobs,
    released: Option<&Marker>,
) -> Result<(), Error> {
    let locked = LockedClaim::lock(database).await?;
    let id = locked.claim.id.clone();
    let marker = store.marker().await?;
    let marker = match decide(&locked.claim, marker.as_ref(), &Given::new(settings, released)) {
        Decision::Fits => return Ok(()),
        Decision::Mark(marker) => return Ok(store.mark(&marker).await?),
        Decision::Take(marker) => {
            note_plain_originals(store, &locked).await?;
            store.mark(&marker).await?;
            marker
        }
        Decision::Name(marker) => marker,
        Decision::MarkFirst => {
            if !settings.storage_adopt {
                ensure_blobs_are_there(settings, database, store, &id).await?;
            }
            note_plain_originals(store, &locked).await?;
            let marker = Marker::new(id.clone());
            if !store.mark_first(&marker).await? {
                // Another installation marked the store first.
                drop(locked);
                return Box::pin(settle_store(settings, database, store, released)).await;
            }
            marker
        }
        Decision::Refuse(found) => return Err(foreign(settings, &id, found)),
        Decision::RefuseCopy(original) => return Err(copied(settings, id, original)),
    };
    locked.name(&marker.store).await?;
    if settings.storage_adopt {
        tracing::warn!(installation = %id, "the blob store now belongs to this installation");
    }
    Ok(())
}

/// Records that a store from elsewhere may contain originals under rendition keys.
///
/// Earlier versions stored originals this way, and the database does not list them.
async fn note_plain_originals(store: &Blobs, locked: &LockedClaim) -> Result<(), Error> {
    let mut plain = store.list().try_filter(|blob| std::future::ready(!blob.key.is_original()));
    if plain.try_next().await?.is_some() {
        locked.note_plain_originals().await?;
    }
    Ok(())
}

/// The action for a store.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Database and store name each other.
    Fits,
    /// The marker must be updated.
    Mark(Marker),
    /// The store gets this marker, and the database its id.
    Take(Marker),
    /// The database gets the id of this marker, which the store has.
    Name(Marker),
    /// The store gets its first marker, and the database its id.
    MarkFirst,
    /// The store is a different one; the text says why.
    Refuse(String),
    /// The store belongs to the installation that the database was copied from.
    RefuseCopy(InstallationId),
}

/// Inputs of the decision from the settings and this process.
struct Given<'a> {
    /// `PM_STORAGE_ADOPT` is set.
    adopts: bool,
    /// The store and the database file are in one directory, so a copy contains both.
    is_beside: bool,
    /// Marker of the store that this process released.
    released: Option<&'a Marker>,
}

impl<'a> Given<'a> {
    fn new(settings: &Settings, released: Option<&'a Marker>) -> Self {
        Self { adopts: settings.storage_adopt, is_beside: is_beside(settings), released }
    }

    fn is_released(&self, marker: &Marker) -> bool {
        marker.released || self.released.is_some_and(|released| released.store == marker.store)
    }
}

fn decide(claim: &StoreClaim, marker: Option<&Marker>, given: &Given<'_>) -> Decision {
    let is_own = marker.is_some_and(|marker| marker.installation == claim.id);
    match (&claim.store, marker) {
        (Some(own), Some(marker)) if *own == marker.store => match &claim.copied_from {
            // A new id, so that neither installation mistakes the other's store for its own.
            Some(_) if given.adopts || given.is_beside => Decision::Take(marker.owned_by(claim.id.clone())),
            Some(original) => Decision::RefuseCopy(original.clone()),
            None if is_own && !marker.released => Decision::Fits,
            // `restore` changed the installation's id, or `migrate fresh` released the store, and ended early.
            None => Decision::Mark(Marker { installation: claim.id.clone(), released: false, ..marker.clone() }),
        },
        // The operator adopts the store, or a process ended after it had marked the store.
        (Some(own), Some(marker)) if is_own && (given.adopts || marker.succeeds(own)) => Decision::Name(marker.clone()),
        (Some(own), Some(marker)) if is_own => Decision::Refuse(format!(
            "it is the store {} of this installation, whose database names {own}",
            marker.store
        )),
        (None, Some(marker)) if given.is_released(marker) => Decision::Take(marker.owned_by(claim.id.clone())),
        // A process marked the store and ended before it updated the database.
        (None, Some(marker)) if is_own => Decision::Name(marker.clone()),
        // No setting overrides this: the other installation may be running, and `pm gc` would delete its blobs.
        (_, Some(marker)) => Decision::Refuse(format!("it belongs to installation {}", marker.installation)),
        (Some(_), None) if !given.adopts => Decision::Refuse(format!("it has no file {MARKER}")),
        (_, None) => Decision::MarkFirst,
    }
}

/// Checks that a store without a marker contains some of the catalog's newest blobs.
async fn ensure_blobs_are_there(
    settings: &Settings,
    database: &Database,
    store: &Blobs,
    id: &InstallationId,
) -> Result<(), Error> {
    const SAMPLES: u64 = 8;
    let samples = renditions::newest_keys(&database.read(), SAMPLES).await?;
    for key in samples.iter().filter_map(|key| BlobKey::parse(key)) {
        if store.exists(&key).await? {
            return Ok(());
        }
    }
    match samples.len() {
        0 => Ok(()),
        none => Err(foreign(settings, id, format!("it has none of the newest {none} blobs"))),
    }
}

/// Checks that the store and the database still belong to this installation.
///
/// A missing marker is no error, because the disk may be unavailable.
///
/// # Errors
/// [`Error::ForeignStore`] if another installation took the store; [`Error::CopiedDatabase`] if a copy replaced the
/// database.
pub(super) async fn ensure_own(settings: &Settings, database: &Database, store: &Blobs) -> Result<(), Error> {
    let claim = identity::store_claim(&database.read()).await?;
    match (&claim.store, store.marker().await?) {
        (Some(own), Some(marker)) if *own == marker.store && claim.copied_from.is_some() => {
            compare_store(settings, database, store).await
        }
        (Some(own), Some(marker)) if *own != marker.store && !marker.released => {
            Err(foreign(settings, &claim.id, format!("it now belongs to installation {}", marker.installation)))
        }
        _ => Ok(()),
    }
}

/// Marks the installation's store as released, and returns its marker.
///
/// The next installation may then take the store. Call this before the data are deleted. If they are not deleted, the
/// installation keeps its store. Does nothing without an installation.
///
/// # Errors
/// [`Error::ForeignStore`], [`Error::CopiedDatabase`] if the store belongs to another installation.
pub async fn release_store(settings: &Settings, database: &Database) -> Result<Option<Marker>, Error> {
    let Some(store) = own_store(settings, database).await? else { return Ok(None) };
    let installation = installation::read(&database.read()).await?;
    let Some(marker) = store.marker().await? else { return Ok(None) };
    let marker = Marker { installation: installation.id, released: true, ..marker };
    store.mark(&marker).await?;
    Ok(Some(marker))
}

/// Returns the installation's store, or `None` without an installation or a store.
///
/// # Errors
/// As for [`release_store`].
pub async fn own_store(settings: &Settings, database: &Database) -> Result<Option<Blobs>, Error> {
    if !schema::has_installation(database).await? {
        return Ok(None);
    }
    let installation = installation::read(&database.read()).await?;
    let Some(own) = &installation.blob_store else { return Ok(None) };
    let store = Blobs::connect(&storage_engine(settings)?).await?;
    match store.marker().await? {
        Some(marker) if marker.store == *own => {
            if identity::is_known(database).await? {
                compare_store(settings, database, &store).await?;
            }
            Ok(Some(store))
        }
        Some(marker) => {
            let found = format!("it belongs to installation {}", marker.installation);
            Err(foreign(settings, &installation.id, found))
        }
        None => Ok(None),
    }
}

/// Gives a new catalog the configured store.
///
/// `released` is the marker of the store that the previous installation released.
///
/// # Errors
/// [`Error::ForeignStore`] if the store belongs to another installation.
pub async fn take_store(settings: &Settings, database: &Database, released: Option<&Marker>) -> Result<(), Error> {
    let store = Blobs::connect(&storage_engine(settings)?).await?;
    settle_store(settings, database, &store, released).await
}

fn foreign(settings: &Settings, id: &InstallationId, found: String) -> Error {
    let database = settings.database.to_string();
    Error::ForeignStore { store: place_of(settings), database, installation: id.clone(), found }
}

fn copied(settings: &Settings, id: InstallationId, original: InstallationId) -> Error {
    Error::CopiedDatabase { store: place_of(settings), database: settings.database.to_string(), id, original }
}

fn place_of(settings: &Settings) -> String {
    match storage_engine(settings) {
        Ok(blobs::Engine::Disk { directory }) => format!("file://{}", absolute(&directory).display()),
        Ok(engine) => engine.to_string(),
        Err(_) => settings.storage_url.clone(),
    }
}

/// Returns whether the store's directory is next to the SQLite file, as by default.
fn is_beside(settings: &Settings) -> bool {
    const DEFAULT_FILE: &str = "pm.db";
    let (DatabaseUrl::Sqlite { path }, Ok(blobs::Engine::Disk { directory })) =
        (&settings.database, storage_engine(settings))
    else {
        return false;
    };
    path.file_name().is_some_and(|name| name == DEFAULT_FILE)
        && absolute(path).parent() == absolute(&directory).parent()
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> InstallationId {
        InstallationId::new(uuid::Uuid::from_u128(number))
    }

    fn claim(store: Option<&str>, copied_from: Option<InstallationId>) -> StoreClaim {
        StoreClaim { id: id(1), store: store.map(str::to_owned), copied_from }
    }

    fn marker(installation: InstallationId, store: &str) -> Marker {
        Marker { store: store.into(), ..Marker::new(installation) }
    }

    fn given(adopts: bool, is_beside: bool) -> Given<'static> {
        Given { adopts, is_beside, released: None }
    }

    #[test]
    fn a_copied_database_never_takes_the_originals_store_by_itself() {
        // The original may have restored a backup, released the store, or ended in the middle of it.
        for original in [id(2), id(3)] {
            for released in [false, true] {
                let marker = Marker { released, ..marker(original.clone(), "s") };
                let copy = claim(Some("s"), Some(id(2)));
                assert_eq!(decide(&copy, Some(&marker), &given(false, false)), Decision::RefuseCopy(id(2)));
                let claimed = Decision::Take(marker.owned_by(id(1)));
                assert_eq!(decide(&copy, Some(&marker), &given(true, false)), claimed);
                assert_eq!(
                    decide(&copy, Some(&marker), &given(false, true)),
                    claimed,
                    "the store was copied together with the database"
                );
            }
        }
    }

    #[test]
    fn a_store_of_another_installation_is_refused_with_any_settings() {
        let other = marker(id(2), "other");
        for given in [given(false, false), given(true, true)] {
            for claim in [claim(None, None), claim(Some("s"), None), claim(Some("s"), Some(id(3)))] {
                assert!(matches!(decide(&claim, Some(&other), &given), Decision::Refuse(_)), "{claim:?}");
            }
        }
    }

    #[test]
    fn a_later_process_completes_an_interrupted_store_update() {
        let nothing = given(false, false);
        let first = marker(id(1), "s");
        assert_eq!(decide(&claim(None, None), Some(&first), &nothing), Decision::Name(first.clone()));
        let claimed = marker(id(2), "s").owned_by(id(1));
        let named = Decision::Name(claimed.clone());
        assert_eq!(decide(&claim(Some("s"), Some(id(2))), Some(&claimed), &nothing), named);
        let restored = marker(id(2), "s");
        assert_eq!(decide(&claim(Some("s"), None), Some(&restored), &nothing), Decision::Mark(marker(id(1), "s")));
        assert_eq!(decide(&claim(Some("s"), None), Some(&marker(id(1), "s")), &nothing), Decision::Fits);
    }

    #[test]
    fn a_store_released_by_this_process_is_claimed_even_if_another_marked_it() {
        let before = marker(id(2), "s");
        let given = Given { released: Some(&before), ..given(false, false) };
        assert_eq!(decide(&claim(None, None), Some(&before), &given), Decision::Take(before.owned_by(id(1))));
    }
}
