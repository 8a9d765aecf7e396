//! Checks that the open SQLite file is still the one at its path.
//!
//! A file that was deleted or replaced still accepts writes, and they are lost when the process ends. So each write
//! first checks that the path refers to the open file. The same check covers the write-ahead log beside it, which is
//! removed when a backup is copied over the file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use rusqlite::OpenFlags;
use sea_orm::DbErr;

use crate::{
    db::{Database, Error, connection::file_identity::FileIdentity},
    private_files,
};

/// A database file and its write-ahead log, as they were when opened.
#[derive(Debug)]
pub(in crate::db) struct OpenFile {
    path: PathBuf,
    identity: FileIdentity,
    log: PathBuf,
    log_identity: OnceLock<FileIdentity>,
    /// Prevents SQLite from deleting the log when the pool closes its connections.
    _keeper: Mutex<rusqlite::Connection>,
}

/// Result of comparing the path with the open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Same,
    Empty,
    Replaced,
}

/// Returns the identity of the file; creates an empty file if none exists.
/// SQLite's own connections never create one, so a missing file is not replaced by an empty one.
///
/// # Errors
/// [`Error::Misconfigured`] if there is a write-ahead log without its file: SQLite would delete it.
/// [`Error::Unavailable`] if the file cannot be created.
pub(in crate::db) async fn find_or_make(path: &Path) -> Result<FileIdentity, Error> {
    if let Some(identity) = identity_of(path).await? {
        return Ok(identity);
    }
    let log = log_of(path);
    let length = match tokio::fs::metadata(&log).await {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(&log, &error)),
    };
    if length > 0 {
        return Err(Error::Misconfigured(format!(
            "the database {} is missing, but its write-ahead log {} exists: restore the file, or move the log away",
            path.display(),
            log.display()
        )));
    }
    let made = tokio::fs::OpenOptions::from(private_files::options()).create(true).append(true).open(path).await;
    made.map_err(|error| unreadable(path, &error))?;
    identity_of(path).await?.ok_or_else(|| gone(path))
}

impl OpenFile {
    /// Remembers the file that was just opened; `identity` is that of before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is gone or was replaced meanwhile. Otherwise the identity could be that of another
    /// file, and the database would be taken for a copy.
    pub(in crate::db) async fn note(path: &Path, identity: FileIdentity) -> Result<Self, Error> {
        let to_open = path.to_owned();
        let keeper = tokio::task::spawn_blocking(move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = rusqlite::Connection::open_with_flags(to_open, flags)?;
            // A connection opens the log with its first read.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok::<_, rusqlite::Error>(connection)
        });
        let keeper = keeper.await.map_err(|error| unavailable(error.to_string()))?;
        let keeper = keeper.map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
        if identity_of(path).await?.as_ref() != Some(&identity) {
            return Err(unavailable(format!("the file {} was replaced while it was opened", path.display())));
        }
        let log = log_of(path);
        Ok(Self { path: path.to_owned(), identity, log, log_identity: OnceLock::new(), _keeper: Mutex::new(keeper) })
    }

    /// Checks that a write would be kept.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file or its log is gone or replaced.
    pub(super) async fn ensure_in_place(&self) -> Result<(), Error> {
        match self.place().await? {
            Place::Same => Ok(()),
            Place::Empty => Err(gone(&self.path)),
            Place::Replaced => {
                let path = self.path.display();
                Err(unavailable(format!("the file {path}, or its write-ahead log, was replaced or removed")))
            }
        }
    }

    async fn place(&self) -> Result<Place, Error> {
        match identity_of(&self.path).await? {
            Some(found) if found == self.identity => {}
            Some(_) => return Ok(Place::Replaced),
            None => return Ok(Place::Empty),
        }
        let is_same = match (identity_of(&self.log).await?, self.log_identity.get()) {
            (Some(found), Some(known)) => found == *known,
            (Some(found), None) => *self.log_identity.get_or_init(|| found.clone()) == found,
            (None, known) => known.is_none(),
        };
        Ok(if is_same { Place::Same } else { Place::Replaced })
    }

    pub(in crate::db) const fn identity(&self) -> &FileIdentity {
        &self.identity
    }
}

impl Database {
    /// Returns the database's path if its file or log was replaced.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file system does not answer.
    pub async fn replaced_file(&self) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.file() else { return Ok(None) };
        Ok((file.place().await? == Place::Replaced).then(|| file.path.clone()))
    }
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.to_owned().into_os_string();
    log.push("-wal");
    log.into()
}

async fn identity_of(path: &Path) -> Result<Option<FileIdentity>, Error> {
    FileIdentity::of(path).await.map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    unavailable(format!("{}: {error}", path.display()))
}

fn gone(path: &Path) -> Error {
    unavailable(format!("the file {} is gone", path.display()))
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable(DbErr::Custom(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_while_it_is_opened_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let [path, aside] = ["pm.db", "aside.db"].map(|name| directory.path().join(name));
        let identity = find_or_make(&path).await.expect("a file");
        assert!(OpenFile::note(&path, identity.clone()).await.is_ok());
        std::fs::rename(&path, &aside).expect("renamed");
        let other = find_or_make(&path).await.expect("another file");
        assert!(OpenFile::note(&path, identity.clone()).await.is_err(), "another file");
        assert!(OpenFile::note(&path, other).await.is_ok());

        let open = OpenFile::note(&aside, identity).await.expect("the first file");
        std::fs::rename(&aside, directory.path().join("moved.db")).expect("renamed");
        std::fs::create_dir(&aside).expect("a directory");
        assert!(find_or_make(&aside).await.is_err(), "a directory");
        assert!(open.ensure_in_place().await.is_err());
    }
}
