//! Errors of the blob store.

use std::{error::Error as StdError, io};

use super::BlobKey;
use crate::code::ErrorCode;

/// Why a blob operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full or the quota is used up; retry later.
    #[error("the blob store is full")]
    Full(#[source] BoxError),
    /// The store is unavailable or refuses access; retry later.
    #[error("the blob store is unavailable")]
    Unavailable(#[source] BoxError),
    /// The blob has no byte of the requested range.
    #[error("the range is outside the blob's {size} bytes")]
    OutOfRange {
        /// Size of the whole blob, in bytes.
        size: u64,
    },
    /// The bytes do not match the key.
    #[error("blob {key} is damaged")]
    Damaged {
        /// Key of the blob.
        key: BlobKey,
    },
    /// The extension is unknown.
    #[error("`{0}` is not a supported image extension")]
    UnknownExtension(String),
    /// The store's settings are invalid.
    #[error("the blob store is misconfigured")]
    Misconfigured(#[source] BoxError),
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// Returns the error code for clients.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Full(_) => ErrorCode::StorageFull,
            Self::Unavailable(_) => ErrorCode::StorageUnavailable,
            Self::OutOfRange { .. } => ErrorCode::RangeNotSatisfiable,
            Self::Damaged { .. } => ErrorCode::SourceDamaged,
            Self::UnknownExtension(_) | Self::Misconfigured(_) => ErrorCode::Internal,
        }
    }

    /// Returns whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Unavailable(_))
    }

    /// Returns whether the disk reports an unreadable sector.
    pub(super) fn is_bad_medium(&self) -> bool {
        const EIO: i32 = 5;
        let Self::Unavailable(cause) = self else { return false };
        causes(cause.as_ref()).any(|cause| {
            let io = cause.downcast_ref::<io::Error>();
            cfg!(unix) && io.is_some_and(|io| io.raw_os_error() == Some(EIO))
        })
    }

    /// Classifies an error of the store. A permission error counts as unavailable: the operator can fix it, so no image
    /// should fail for good.
    pub(super) fn of_store(error: object_store::Error) -> Self {
        use object_store::Error::{InvalidPath, NotImplemented, UnknownConfigurationKey};
        match &error {
            InvalidPath { .. } | NotImplemented { .. } | UnknownConfigurationKey { .. } => {
                Self::Misconfigured(Box::new(error))
            }
            _ if is_full(&error) => Self::Full(Box::new(error)),
            _ => Self::Unavailable(Box::new(error)),
        }
    }

    pub(super) fn of_io(error: io::Error) -> Self {
        if is_full(&error) { Self::Full(Box::new(error)) } else { Self::Unavailable(Box::new(error)) }
    }

    /// Converts the failure of a blocking task: it panicked, or the runtime is shutting down.
    pub(super) fn of_task(error: tokio::task::JoinError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Returns whether a full disk or quota is among the causes of `error`.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    causes(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded))
    })
}

/// Returns the error and its chain of causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: io::Error) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(source) }
    }

    #[test]
    fn a_full_disk_is_distinguished_from_a_broken_one() {
        let full = Error::of_store(generic(io::Error::from_raw_os_error(28)));
        assert_eq!((full.code(), full.is_transient()), (ErrorCode::StorageFull, true));
        let quota = Error::of_io(io::ErrorKind::QuotaExceeded.into());
        assert_eq!(quota.code(), ErrorCode::StorageFull);
        let broken = Error::of_store(generic(io::Error::from_raw_os_error(5)));
        assert_eq!((broken.code(), broken.is_transient()), (ErrorCode::StorageUnavailable, true));
        assert!(broken.is_bad_medium() && !full.is_bad_medium());
    }
}
