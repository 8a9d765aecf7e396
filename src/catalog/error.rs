//! What can go wrong with a use-case, by what the caller does next.

use std::sync::Arc;

use crate::{
    blobs,
    code::ErrorCode,
    db,
    domain::{Invalid, UserId},
};

/// Any error behind an error; shared, since several readers may wait for one read.
pub type BoxError = Arc<dyn std::error::Error + Send + Sync>;

/// A use-case that did not come about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The input is wrong; every wrong field is named.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is nothing of that name.
    #[error("there is no {what}")]
    NotFound {
        /// What was asked for: `product 12`.
        what: String,
    },
    /// There was something of that name, and it was deleted.
    #[error("{what} was deleted")]
    Gone {
        /// What was asked for: `product 12`.
        what: String,
    },
    /// The request contradicts what is stored.
    #[error("{0}")]
    Conflict(String),
    /// The resource is no longer what the request takes it for.
    #[error("{0}")]
    Precondition(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// So many jobs wait for a user that no more may be queued.
    #[error("{waiting} images of user {user_id} wait already; at most {most} may wait at a time")]
    Backlog {
        /// The user.
        user_id: UserId,
        /// How many wait.
        waiting: u64,
        /// How many may wait.
        most: u64,
    },
    /// The worker's lease is another's by now; its result must be dropped.
    #[error("the job was given to another worker")]
    LeaseLost,
    /// A blob that is to be referred to was removed meanwhile; it has to be stored again.
    #[error("the file {key} is no longer in the store; it has to be stored again")]
    BlobGone {
        /// Its key.
        key: String,
    },
    /// Blobs are being copied, and none may be removed meanwhile.
    #[error("a backup or a restore is running, and nothing may be removed meanwhile")]
    Copying,
    /// A setting that the use-case needs is not set.
    #[error("{0}")]
    NotConfigured(&'static str),
    /// A component does not answer; the same request may go through later.
    #[error("the {component} does not answer")]
    Unavailable {
        /// `database`, `storage` …
        component: &'static str,
        /// What it said.
        source: BoxError,
    },
    /// The disk is full; the same request may go through later.
    #[error("the {component} has no room left")]
    Full {
        /// `database`, `storage` …
        component: &'static str,
        /// What it said.
        source: BoxError,
    },
    /// Something that must not happen.
    #[error("something is wrong inside pm")]
    Internal(#[source] BoxError),
}

impl Error {
    /// The code that clients see.
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

    /// Whether the same request may go through later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }

    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::NotFound { what: what.to_string() }
    }

    pub(super) fn gone(what: impl std::fmt::Display) -> Self {
        Self::Gone { what: what.to_string() }
    }

    /// The component has its hands full; the same request goes through later.
    pub(super) fn busy(component: &'static str) -> Self {
        let busy = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
        Self::Unavailable { component, source: Arc::new(busy) }
    }

    pub(crate) fn away(component: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
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
