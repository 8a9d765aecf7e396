//! What can go wrong with the store, sorted by what the caller does next.

use std::{error::Error as StdError, io};

use super::BlobKey;
use crate::code::ErrorCode;

/// Why a blob was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room left, or the quota is used up; try again when there is.
    #[error("there is no room left in the blob store")]
    Full(#[source] BoxError),
    /// The store does not answer, or refuses to; try again later.
    #[error("the blob store does not answer")]
    Unavailable(#[source] BoxError),
    /// The blob has no byte of the range that was asked for.
    #[error("the range lies outside the blob's {size} bytes")]
    OutOfRange {
        /// Bytes of the whole blob.
        size: u64,
    },
    /// The blob's bytes are not those that its key names.
    #[error("the blob {key} is damaged")]
    Damaged {
        /// Which.
        key: BlobKey,
    },
    /// Blobs with this extension are not stored.
    #[error("`{0}` is not the extension of a picture")]
    UnknownExtension(String),
    /// The settings of the store cannot work.
    #[error("the blob store is not set up rightly")]
    Misconfigured(#[source] BoxError),
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl Error {
    /// The code that clients see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Full(_) => ErrorCode::StorageFull,
            Self::Unavailable(_) => ErrorCode::StorageUnavailable,
            Self::OutOfRange { .. } => ErrorCode::RangeNotSatisfiable,
            Self::Damaged { .. } => ErrorCode::SourceDamaged,
            Self::UnknownExtension(_) | Self::Misconfigured(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same call may well work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Unavailable(_))
    }

    /// Whether the disk reports that it cannot read the place where the bytes lie.
    pub(super) fn is_bad_medium(&self) -> bool {
        const EIO: i32 = 5;
        let Self::Unavailable(cause) = self else { return false };
        causes(cause.as_ref()).any(|cause| {
            let io = cause.downcast_ref::<io::Error>();
            cfg!(unix) && io.is_some_and(|io| io.raw_os_error() == Some(EIO))
        })
    }

    /// Sorts what the store reports. A refused permission counts as unavailable: it lies with whoever runs the store,
    /// and no picture should be given up for it.
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

    /// A blocking task that did not come back: it panicked, or the program is about to end.
    pub(super) fn of_task(error: tokio::task::JoinError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Whether `error` comes of a full disk or a used-up quota, wherever in its causes that stands.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    causes(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded))
    })
}

/// The error and everything that it comes of.
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
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = Error::of_store(generic(io::Error::from_raw_os_error(28)));
        assert_eq!((full.code(), full.is_transient()), (ErrorCode::StorageFull, true));
        let quota = Error::of_io(io::ErrorKind::QuotaExceeded.into());
        assert_eq!(quota.code(), ErrorCode::StorageFull);
        let broken = Error::of_store(generic(io::Error::from_raw_os_error(5)));
        assert_eq!((broken.code(), broken.is_transient()), (ErrorCode::StorageUnavailable, true));
        assert!(broken.is_bad_medium() && !full.is_bad_medium());
    }
}
