//! What can go wrong with a backup, by what people do next.

use std::{io, path::Path, path::PathBuf};

use crate::{blobs, catalog, code::ErrorCode, db};

/// A backup or a restore that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The directory is not one for a backup, or the installation not one to restore into.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
        /// What helps.
        hint: &'static str,
    },
    /// Nothing of the backup can be used, since these files are damaged.
    #[error("the backup is damaged: {}", .0.join(", "))]
    Damaged(Vec<String>),
    /// A file of the backup cannot be read or written.
    #[error("{} cannot be used", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// The code that people see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Catalog(error) => error.code(),
            Self::Refused { .. } => ErrorCode::Conflict,
            Self::Damaged(_) => ErrorCode::Internal,
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorCode::StorageFull,
            Self::File { .. } => ErrorCode::Internal,
        }
    }

    /// Whether the same command may go through later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Catalog(error) if error.is_transient())
    }

    pub(super) fn refused(reason: impl Into<String>, hint: &'static str) -> Self {
        Self::Refused { reason: reason.into(), hint }
    }

    /// An error of this file.
    pub(super) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        Self::Catalog(error.into())
    }
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        Self::Catalog(error.into())
    }
}
