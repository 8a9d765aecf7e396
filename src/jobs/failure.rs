//! Describes why a job's attempt failed and whether to retry it.

use std::time::Duration;

use crate::{blobs, catalog, code::ErrorCode, fetch, isolation, retry};

/// A failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Error code for clients.
    pub code: ErrorCode,
    /// Error message for clients.
    pub message: String,
    /// Retry policy; `None` if a retry cannot help.
    pub retry: Option<retry::Policy>,
    /// Delay that the origin requested.
    pub retry_after: Option<Duration>,
    /// Whether the decoder crashed; an image that crashes it repeatedly fails for good.
    pub decoder_died: bool,
}

impl Failure {
    /// Creates a failure that is not retried.
    pub fn permanent(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: None, retry_after: None, decoder_died: false }
    }

    /// Creates a failure that is retried.
    pub fn transient(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { retry: Some(retry::TRANSIENT), ..Self::permanent(code, message) }
    }

    /// Creates the failure of a job whose task panicked; repeated panics fail the image for good.
    pub fn broken_down() -> Self {
        let message = "the worker's task panicked on this image";
        Self { decoder_died: true, ..Self::transient(ErrorCode::Internal, message) }
    }
}

impl From<fetch::Error> for Failure {
    fn from(error: fetch::Error) -> Self {
        let (retry, retry_after) = (error.retry(), error.retry_after());
        Self { retry, retry_after, ..Self::permanent(error.code(), error.to_string()) }
    }
}

impl From<catalog::Error> for Failure {
    fn from(error: catalog::Error) -> Self {
        match error {
            catalog::Error::LeaseLost => Self::transient(ErrorCode::Internal, "another worker has taken the job"),
            error => Self::transient(error.code(), "the database failed before decoding"),
        }
    }
}

impl From<isolation::Error> for Failure {
    fn from(error: isolation::Error) -> Self {
        if error.is_of_the_system() {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot decode images");
        }
        let decoder_died = matches!(error, isolation::Error::Died(_));
        let retry = error.is_transient().then_some(retry::TRANSIENT);
        Self { retry, decoder_died, ..Self::permanent(error.code(), error.to_string()) }
    }
}

impl From<blobs::Error> for Failure {
    fn from(error: blobs::Error) -> Self {
        // Details go to the log only; clients need no paths or bucket names.
        tracing::warn!(error = &error as &dyn std::error::Error, "blob storage failed");
        let code = error.code();
        let retry = error.is_transient().then_some(retry::OWN_STORE);
        Self { retry, ..Self::permanent(code, code.meaning()) }
    }
}
