//! Errors of backup and restore, one variant per reaction of the operator.

use std::{io, path::Path, path::PathBuf};

use crate::{blobs, catalog, code::ErrorCode, db};

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The directory cannot hold this backup, or the installation cannot be restored into.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
        /// How to solve it.
        hint: &'static str,
    },
    /// The backup is unusable because these files are damaged.
    #[error("the backup is damaged: {}", .0.join(", "))]
    Damaged(Vec<String>),
    /// A file of the backup cannot be read or written.
    #[error("cannot read or write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Returns the error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Catalog(error) => error.code(),
            Self::Refused { .. } => ErrorCode::Conflict,
            Self::Damaged(_) => ErrorCode::Internal,
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorCode::StorageFull,
            Self::File { .. } => ErrorCode::Internal,
        }
    }

    /// Whether a later retry may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Catalog(error) if error.is_transient())
    }

    pub(super) fn refused(reason: impl Into<String>, hint: &'static str) -> Self {
        Self::Refused { reason: reason.into(), hint }
    }

    /// Returns a function that wraps an I/O error of this file.
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
