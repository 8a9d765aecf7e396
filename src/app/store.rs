//! The installation's blob store: whether database and store belong together.
//!
//! A database names its blob store by an id, and the store has a marker with that id and the installation's. A program that
//! finds anything else was started in another directory, or with another store's address, and goes no further.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Error, storage_engine};
use crate::{
    blobs::{self, BlobKey, Blobs, MARKER, Marker},
    config::Settings,
    db::{
        Database, identity,
        installation::{self, Installation},
        renditions, schema,
    },
};

/// A store that takes longer to show its marker counts as unavailable.
const MARKER_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the installation's blob store; an installation without one takes the store of the settings.
///
/// The second value says whether the store showed its marker: one that does not answer is compared later.
///
/// # Errors
/// [`Error::ForeignStore`] with what differs from what.
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
        return Err(foreign(settings, installation, found));
    }
    let store = Blobs::connect(&engine).await?;
    let compared = tokio::time::timeout(MARKER_TIMEOUT, compare_store(settings, database, &store));
    match compared.await {
        Ok(Err(Error::Storage(error))) if error.is_transient() => {
            tracing::warn!(%error, "the blob store does not answer; its marker is compared when it does");
            Ok((store, false))
        }
        Ok(compared) => compared.map(|()| (store, true)),
        Err(_) => {
            tracing::warn!("the blob store does not answer; its marker is compared when it does");
            Ok((store, false))
        }
    }
}

/// Compares the store's marker with the database, and marks a store that an installation takes.
///
/// # Errors
/// [`Error::ForeignStore`] with what differs from what.
pub(super) async fn compare_store(settings: &Settings, database: &Database, store: &Blobs) -> Result<(), Error> {
    let installation = installation::read(&database.read()).await?;
    let marker = store.marker().await?;
    match (&installation.blob_store, marker) {
        (Some(own), Some(marker)) if *own == marker.store => {
            keep(settings, database, store, &installation, marker).await
        }
        (None, Some(marker)) if marker.released => {
            let marker = marker.taken_by(installation.id.clone(), store.directory_identity().await?);
            store.mark(&marker).await?;
            choose(settings, database, &installation, &marker.store).await
        }
        // The store was marked by a process that ended, or is about to, before it said so in the database.
        (None, Some(marker)) if marker.installation == installation.id => {
            choose(settings, database, &installation, &marker.store).await
        }
        // Another process takes the store, or ended between the two steps of that.
        (Some(own), Some(marker)) if marker.installation == installation.id && marker.succeeds(own) => {
            adopt(database, &installation, &marker).await
        }
        (Some(own), Some(marker)) if marker.installation == installation.id => match settings.storage_adopt {
            true => adopt(database, &installation, &marker).await,
            false => {
                let found =
                    format!("it is the store {} of this installation, whose database names {own}", marker.store);
                Err(foreign(settings, &installation, found))
            }
        },
        // Never by a setting: the other installation may be at work, and `pm gc` would remove its blobs.
        (_, Some(marker)) => {
            Err(foreign(settings, &installation, format!("it belongs to installation {}", marker.installation)))
        }
        (_, None) if settings.storage_adopt => {
            let marker = Marker::new(installation.id.clone(), store.directory_identity().await?);
            match store.mark_first(&marker).await? {
                true => adopt(database, &installation, &marker).await,
                // Another process was faster.
                false => Box::pin(compare_store(settings, database, store)).await,
            }
        }
        (None, None) => take(settings, database, store, &installation).await,
        (Some(_), None) => Err(foreign(settings, &installation, format!("it has no file {MARKER}"))),
    }
}

/// Goes on with the store that the database names, and brings its marker up to date: `restore` gave the installation a new id,
/// or `migrate fresh` was about to delete it, and ended early; or the directory is another one by now.
///
/// A copied database names the store of the installation that it is a copy of. It may have the store if that was copied with
/// it, and otherwise if somebody says that the other installation is gone.
///
/// # Errors
/// [`Error::ForeignStore`] if the store is that installation's.
async fn keep(
    settings: &Settings,
    database: &Database,
    store: &Blobs,
    installation: &Installation,
    marker: Marker,
) -> Result<(), Error> {
    let directory = store.directory_identity().await?;
    if is_of_original(database, &marker, directory.as_ref()).await? && !settings.storage_adopt {
        let found = format!(
            "the database is a copy, or was moved, and the store belongs to installation {}",
            marker.installation
        );
        return Err(foreign(settings, installation, found));
    }
    match identity::copied_from(database).await? {
        Some(_) => {
            // A store of its own, so that neither of the two takes the other's for its own.
            let marker = marker.taken_by(installation.id.clone(), directory);
            store.mark(&marker).await?;
            adopt(database, installation, &marker).await
        }
        None => {
            let current =
                Marker { installation: installation.id.clone(), directory, released: false, ..marker.clone() };
            if current != marker {
                store.mark(&current).await?;
            }
            Ok(())
        }
    }
}

/// Whether the store belongs to the installation that the database was copied from, and is no copy itself.
async fn is_of_original(database: &Database, marker: &Marker, directory: Option<&String>) -> Result<bool, Error> {
    let is_original = identity::copied_from(database).await?.is_some_and(|from| from == marker.installation);
    Ok(is_original && !marker.released && (directory.is_none() || directory == marker.directory.as_ref()))
}

/// Names a store that bears this installation's marker in the database.
async fn choose(
    settings: &Settings,
    database: &Database,
    installation: &Installation,
    store_id: &str,
) -> Result<(), Error> {
    installation::choose_blob_store(&database.read(), store_id).await?;
    match installation::read(&database.read()).await?.blob_store {
        Some(chosen) if chosen == store_id => Ok(()),
        _ => Err(foreign(settings, installation, "another process has just chosen another store".into())),
    }
}

/// Whether a store that this process uses has become another installation's. A missing marker says nothing: the disk may be
/// away.
///
/// # Errors
/// [`Error::ForeignStore`] if it has.
pub(super) async fn ensure_own(settings: &Settings, database: &Database, store: &Blobs) -> Result<(), Error> {
    let installation = installation::read(&database.read()).await?;
    match (&installation.blob_store, store.marker().await?) {
        (Some(own), Some(marker)) if *own != marker.store && !marker.released => {
            Err(foreign(settings, &installation, format!("it belongs to installation {} now", marker.installation)))
        }
        _ => Ok(()),
    }
}

/// Notes in the marker of the installation's store that its data are about to be deleted, so that the next installation takes the
/// store; does nothing without an installation. If the data stay after all, so does the store.
///
/// # Errors
/// [`Error::ForeignStore`] if the store is another installation's; if it does not answer.
pub async fn release_store(settings: &Settings, database: &Database) -> Result<(), Error> {
    if let Some(store) = own_store(settings, database).await? {
        let installation = installation::read(&database.read()).await?;
        if let Some(marker) = store.marker().await? {
            store.mark(&Marker { installation: installation.id, released: true, ..marker }).await?;
        }
    }
    Ok(())
}

/// The installation's store; `None` if there is no installation, or it has none.
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
        Some(marker) if is_of_original(database, &marker, store.directory_identity().await?.as_ref()).await? => {
            Ok(None)
        }
        Some(marker) if marker.store == *own => Ok(Some(store)),
        Some(marker) => {
            let found = format!("it belongs to installation {}", marker.installation);
            Err(foreign(settings, &installation, found))
        }
        None => Ok(None),
    }
}

/// Gives a catalogue that was just made the store of the settings.
///
/// # Errors
/// [`Error::ForeignStore`] if it is another installation's; if it does not answer.
pub async fn take_store(settings: &Settings, database: &Database) -> Result<(), Error> {
    compare_store(settings, database, &Blobs::connect(&storage_engine(settings)?).await?).await
}

/// Takes a store that has no marker. One in which blobs of the catalogue are missing is not the one they were put into.
async fn take(
    settings: &Settings,
    database: &Database,
    store: &Blobs,
    installation: &Installation,
) -> Result<(), Error> {
    const SAMPLES: u64 = 8;
    let samples = renditions::newest_keys(&database.read(), SAMPLES).await?;
    let mut there = 0;
    for key in samples.iter().filter_map(|key| BlobKey::parse(key)) {
        there += usize::from(store.exists(&key).await?);
    }
    if there == 0 && !samples.is_empty() {
        let found = format!("it has none of the newest {} blobs", samples.len());
        return Err(foreign(settings, installation, found));
    }
    let marker = Marker::new(installation.id.clone(), store.directory_identity().await?);
    if !store.mark_first(&marker).await? {
        return Box::pin(compare_store(settings, database, store)).await;
    }
    if !installation::choose_blob_store(&database.read(), &marker.store).await? {
        // Another process was faster; if it took another store, this one is nobody's.
        let now = installation::read(&database.read()).await?;
        if now.blob_store.as_deref() != Some(&marker.store) {
            store.unmark().await?;
            return Err(foreign(settings, installation, "another process has just chosen another store".into()));
        }
    }
    Ok(())
}

/// Makes a store that is marked for the installation its store: somebody asked for it.
async fn adopt(database: &Database, installation: &Installation, marker: &Marker) -> Result<(), Error> {
    let connection = database.read();
    installation::set_blob_store(&connection, &marker.store).await?;
    identity::forget_origin(&connection).await?;
    tracing::warn!(installation = %installation.id, "the blob store was made this installation's");
    Ok(())
}

fn foreign(settings: &Settings, installation: &Installation, found: String) -> Error {
    let store = match storage_engine(settings) {
        Ok(blobs::Engine::Disk { directory }) => format!("file://{}", absolute(&directory).display()),
        Ok(engine) => engine.to_string(),
        Err(_) => settings.storage_url.clone(),
    };
    Error::ForeignStore { store, database: settings.database.to_string(), installation: installation.id.clone(), found }
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
