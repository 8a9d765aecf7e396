//! The file that a process has open as its SQLite database. A file that was deleted, or replaced by another one, still takes
//! writes, and they are lost with the process: so each write makes sure first that the path leads to the open file.

use std::path::{Path, PathBuf};

use sea_orm::DbErr;

use crate::{
    db::{Database, Error},
    file_identity::FileIdentity,
};

/// A database's file as it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    identity: FileIdentity,
}

/// What the path of an open file leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Same,
    Empty,
    Taken,
}

impl OpenFile {
    /// Notes which file was just opened.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is gone already.
    pub(super) async fn note(path: &Path) -> Result<Self, Error> {
        match FileIdentity::of(path).await {
            Ok(Some(identity)) => Ok(Self { path: path.to_owned(), identity }),
            Ok(None) => Err(unavailable(format!("the file {} is gone", path.display()))),
            Err(error) => Err(unavailable(format!("{}: {error}", path.display()))),
        }
    }

    /// Makes sure that a write would be kept.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file is gone or replaced.
    pub(super) async fn ensure_in_place(&self) -> Result<(), Error> {
        match self.place().await? {
            Place::Same => Ok(()),
            Place::Empty => Err(unavailable(format!("the file {} is gone", self.path.display()))),
            Place::Taken => Err(unavailable(format!("the file {} was replaced by another one", self.path.display()))),
        }
    }

    async fn place(&self) -> Result<Place, Error> {
        match FileIdentity::of(&self.path).await {
            Ok(Some(found)) if found == self.identity => Ok(Place::Same),
            Ok(Some(_)) => Ok(Place::Taken),
            Ok(None) => Ok(Place::Empty),
            Err(error) => Err(unavailable(format!("{}: {error}", self.path.display()))),
        }
    }

    pub(super) fn identity(&self) -> &FileIdentity {
        &self.identity
    }
}

impl Database {
    /// Returns the path of the database's file if another file has taken its place since it was opened.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file system does not answer.
    pub async fn replaced_file(&self) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.file() else { return Ok(None) };
        Ok((file.place().await? == Place::Taken).then(|| file.path.clone()))
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable(DbErr::Custom(reason))
}
