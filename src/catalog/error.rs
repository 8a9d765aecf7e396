//! Errors of use cases, one variant per reaction of the caller.

use std::sync::Arc;

use crate::{
    blobs,
    code::ErrorCode,
    db,
    domain::{Invalid, UserId},
};

/// The cause of an error; shared, since several readers can wait for one read.
pub type BoxError = Arc<dyn std::error::Error + Send + Sync>;

/// Why a use case failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The input is invalid; lists every invalid field.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The resource does not exist.
    #[error("{what} not found")]
    NotFound {
        /// The requested resource: `product 12`.
        what: String,
    },
    /// The resource existed and was deleted.
    #[error("{what} was deleted")]
    Gone {
        /// The requested resource: `product 12`.
        what: String,
    },
    /// The request conflicts with the stored state.
    #[error("{0}")]
    Conflict(String),
    /// The precondition of the request does not hold.
    #[error("{0}")]
    Precondition(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The user has reached the limit of queued jobs.
    #[error("user {user_id} already has {waiting} images in the queue; the limit is {most}")]
    Backlog {
        /// The user.
        user_id: UserId,
        /// Number of queued jobs.
        waiting: u64,
        /// Maximum number of queued jobs.
        most: u64,
    },
    /// The worker lost its lease; it must discard its result.
    #[error("the lease was lost: another worker may have the job")]
    LeaseLost,
    /// A blob was deleted before a row referred to it; the caller must store it again.
    #[error("blob {key} was deleted from the store before it was used; upload the file again")]
    BlobGone {
        /// Its key.
        key: String,
    },
    /// Blobs are being copied, so none can be deleted.
    #[error("a backup or a restore is running; blobs cannot be deleted until it ends")]
    Copying,
    /// A setting that the use case needs is not set.
    #[error("{0}")]
    NotConfigured(&'static str),
    /// A component does not answer; a later retry may succeed.
    #[error("the {component} does not answer")]
    Unavailable {
        /// `database`, `storage` …
        component: &'static str,
        /// The component's error.
        source: BoxError,
    },
    /// The disk is full; a later retry may succeed.
    #[error("the {component} is out of disk space")]
    Full {
        /// `database`, `storage` …
        component: &'static str,
        /// The component's error.
        source: BoxError,
    },
    /// A bug or damaged data.
    #[error("internal error")]
    Internal(#[source] BoxError),
}

impl Error {
    /// Returns the error code in responses.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::Validation,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Gone { .. } => ErrorCode::Gone,
            Self::Conflict(_) | Self::LeaseLost | Self::Copying => ErrorCode::Conflict,
            Self::Precondition(_) => ErrorCode::PreconditionFailed,
            Self::KeyReused => ErrorCode::IdempotencyKeyReused,
            Self::Backlog { .. } => ErrorCode::RateLimited,
            Self::BlobGone { .. } => ErrorCode::StorageUnavailable,
            Self::NotConfigured(_) => ErrorCode::NotConfigured,
            Self::Unavailable { .. } => ErrorCode::Unavailable,
            Self::Full { .. } => ErrorCode::StorageFull,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Whether a later retry may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }

    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::NotFound { what: what.to_string() }
    }

    pub(super) fn gone(what: impl std::fmt::Display) -> Self {
        Self::Gone { what: what.to_string() }
    }

    /// Creates the error of an overloaded component; a later retry may succeed.
    pub(super) fn contended(component: &'static str) -> Self {
        let contended = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
        Self::Unavailable { component, source: Arc::new(contended) }
    }

    pub(crate) fn unavailable(component: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable { component, source: Arc::new(error) }
    }

    pub(crate) fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(error))
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        let component = "database";
        match error.code() {
            ErrorCode::StorageFull => Self::Full { component, source: Arc::new(error) },
            ErrorCode::Unavailable => Self::Unavailable { component, source: Arc::new(error) },
            _ => Self::Internal(Arc::new(error)),
        }
    }
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        let component = "storage";
        match error.code() {
            ErrorCode::StorageFull => Self::Full { component, source: Arc::new(error) },
            ErrorCode::StorageUnavailable => Self::Unavailable { component, source: Arc::new(error) },
            _ => Self::Internal(Arc::new(error)),
        }
    }
}
