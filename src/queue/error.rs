//! What can go wrong on the way from a due job to a worker. Nothing here is final: the job itself is safe in the database.

use crate::{code::ErrorCode, domain::JobId};

/// Why the queue could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached, refuses or is too slow; the same call may succeed later.
    #[error("the message broker is not available: {reason}{}", words(source.as_ref()))]
    Unavailable {
        /// The step that failed, for people.
        reason: &'static str,
        /// What the client library said, if it said anything.
        #[source]
        source: Option<lapin::Error>,
    },
    /// Another installation is in the database now, as after a restore; its queue has another name.
    #[error("the database holds another installation by now")]
    Renamed,
    /// The address or the name of the queue can never work; never holds the address itself, which has a password in it.
    #[error("the message broker's settings cannot be used: {0}")]
    Config(String),
}

impl Error {
    /// The code that clients and job rows see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable { .. } | Self::Renamed => ErrorCode::Unavailable,
            Self::Config(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Renamed)
    }

    /// Whether there was no answer at all, rather than a refusal or a broken connection.
    pub(super) const fn is_silence(&self) -> bool {
        matches!(self, Self::Unavailable { source: None, .. } | Self::Renamed)
    }

    /// The broker did not do `reason` in time, or there is no connection to do it on.
    pub(super) fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable { reason, source: None }
    }

    /// The client library failed with `source` while it was about `reason`.
    pub(super) fn broker(reason: &'static str, source: lapin::Error) -> Self {
        Self::Unavailable { reason, source: Some(source) }
    }
}

/// What the broker itself answered, with a colon before it: it names the virtual host, the queue and the user.
fn words(source: Option<&lapin::Error>) -> String {
    match source.map(lapin::Error::kind) {
        Some(lapin::ErrorKind::ProtocolError(refusal)) => format!(": {}", refusal.get_message()),
        _ => String::new(),
    }
}

/// Not every job of a batch is known to be in the queue.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} jobs of the batch are published, the others are not or nobody knows", confirmed.len())]
pub struct PublishError {
    /// The jobs whose messages the broker has confirmed; all others must be published again.
    pub confirmed: Vec<JobId>,
    /// What stood in the way of the others.
    #[source]
    pub source: Error,
}

impl PublishError {
    /// The code of the cause.
    pub fn code(&self) -> ErrorCode {
        self.source.code()
    }

    /// Whether publishing the others again may succeed.
    pub fn is_transient(&self) -> bool {
        self.source.is_transient()
    }
}
