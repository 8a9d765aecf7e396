//! Why a job's attempt failed, and whether another one makes sense.

use std::time::Duration;

use crate::{blobs, catalog, code::ErrorCode, fetch, isolation, retry};

/// A failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The code that clients see.
    pub code: ErrorCode,
    /// A sentence that clients see.
    pub message: String,
    /// How it is tried again; `None` if it never will be.
    pub retry: Option<retry::Policy>,
    /// When the origin wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Whether the decoder died: a picture over which that happens again and again is given up.
    pub decoder_died: bool,
}

impl Failure {
    /// A failure that no further attempt can mend.
    pub fn permanent(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: None, retry_after: None, decoder_died: false }
    }

    /// A failure that may go away.
    pub fn transient(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { retry: Some(retry::TRANSIENT), ..Self::permanent(code, message) }
    }

    /// The work itself broke down over the image, which is given up if that happens again and again.
    pub fn broken_down() -> Self {
        let message = "the worker's task broke down over this image";
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
            catalog::Error::LeaseLost => Self::transient(ErrorCode::Internal, "the job was given to another worker"),
            error => Self::transient(error.code(), "the database did not answer before decoding"),
        }
    }
}

impl From<isolation::Error> for Failure {
    fn from(error: isolation::Error) -> Self {
        if error.is_of_the_system() {
            tracing::error!(error = &error as &dyn std::error::Error, "pictures cannot be decoded");
        }
        let decoder_died = matches!(error, isolation::Error::Died(_));
        let retry = error.is_transient().then_some(retry::TRANSIENT);
        Self { retry, decoder_died, ..Self::permanent(error.code(), error.to_string()) }
    }
}

impl From<blobs::Error> for Failure {
    fn from(error: blobs::Error) -> Self {
        // What the store says stands in the log; clients need no paths or bucket names.
        tracing::warn!(error = &error as &dyn std::error::Error, "the store for pictures failed");
        let code = error.code();
        let retry = error.is_transient().then_some(retry::OWN_STORE);
        Self { retry, ..Self::permanent(code, code.meaning()) }
    }
}
