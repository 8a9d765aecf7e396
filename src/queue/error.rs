//! Errors between a due job and a worker. None is final, since the job itself is stored in the database.

use crate::{code::ErrorCode, domain::JobId};

/// AMQP's reply code for a queue that does not exist.
const NOT_FOUND: u16 = 404;

/// Error of a queue operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The broker is unreachable, slow or rejects the operation; the same call may succeed later.
    #[error("the message broker is not available: {reason}{}", words(source.as_ref()))]
    Unavailable {
        /// The step that failed, for messages.
        reason: &'static str,
        /// The error of the client library, if there is one.
        #[source]
        source: Option<lapin::Error>,
    },
    /// The queue was deleted; the next connection declares it again.
    #[error("the message broker is not available: {0}")]
    QueueGone(&'static str),
    /// The installation's id changed, as after a restore, and so did its queue's name.
    #[error("the database belongs to another installation now")]
    Renamed,
    /// The broker's URL or the queue's name is invalid.
    /// The text never contains the URL, which has a password.
    #[error("invalid settings of the message broker: {0}")]
    Config(String),
}

impl Error {
    /// Returns the code that clients and job rows contain.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable { .. } | Self::QueueGone(_) | Self::Renamed => ErrorCode::Unavailable,
            Self::Config(_) => ErrorCode::Internal,
        }
    }

    /// Returns whether the same call may succeed later without intervention.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::QueueGone(_) | Self::Renamed)
    }

    /// Returns whether there was no answer, rather than a rejection or a broken connection.
    pub(super) const fn is_silence(&self) -> bool {
        matches!(self, Self::Unavailable { source: None, .. } | Self::QueueGone(_) | Self::Renamed)
    }

    /// Returns whether the queue was deleted, also if only the broker's text says so.
    pub(super) fn is_missing_queue(&self) -> bool {
        match self {
            Self::QueueGone(_) => true,
            Self::Unavailable { source: Some(source), .. } => {
                matches!(source.kind(), lapin::ErrorKind::ProtocolError(refusal) if refusal.get_id() == NOT_FOUND)
            }
            Self::Unavailable { source: None, .. } | Self::Renamed | Self::Config(_) => false,
        }
    }

    /// Returns the error for a step that timed out or had no connection.
    pub(super) fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable { reason, source: None }
    }

    /// Returns the error for a step that failed with `source`.
    pub(super) fn broker(reason: &'static str, source: lapin::Error) -> Self {
        Self::Unavailable { reason, source: Some(source) }
    }
}

/// Returns the broker's own text after a colon; it names the virtual host, the queue and the user.
fn words(source: Option<&lapin::Error>) -> String {
    match source.map(lapin::Error::kind) {
        Some(lapin::ErrorKind::ProtocolError(refusal)) => format!(": {}", refusal.get_message()),
        _ => String::new(),
    }
}

/// Some jobs of a batch are not confirmed to be in the queue.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} jobs of the batch are published; the others are not confirmed", confirmed.len())]
pub struct PublishError {
    /// The jobs with a confirmed message; all others must be published again.
    pub confirmed: Vec<JobId>,
    /// The error of the others.
    #[source]
    pub source: Error,
}

impl PublishError {
    /// Returns the code of the cause.
    pub fn code(&self) -> ErrorCode {
        self.source.code()
    }

    /// Returns whether publishing the others again may succeed.
    pub fn is_transient(&self) -> bool {
        self.source.is_transient()
    }
}
