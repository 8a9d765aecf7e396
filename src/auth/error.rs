//! Errors of token verification. No message contains any part of the token.

use std::sync::Arc;

use crate::code::ErrorCode;

/// Why a token was not verified.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The token is invalid; a retry cannot help.
    #[error("the access token {0}")]
    Refused(RejectionReason),
    /// The issuer's keys are unavailable, so no token can be verified.
    #[error("cannot fetch the issuer's keys")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The HTTP client cannot be created.
    #[error("cannot create the HTTP client for the issuer's keys")]
    Setup(#[source] Arc<reqwest::Error>),
}

impl Error {
    /// Returns the error code for clients.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(_) => ErrorCode::InvalidToken,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Setup(_) => ErrorCode::Internal,
        }
    }

    /// Returns whether a retry may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Why a token was rejected; completes the sentence "the access token …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectionReason {
    /// Over [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
    #[error("is longer than 8 KiB")]
    TooLong,
    /// Not three Base64 parts with JSON.
    #[error("is malformed")]
    Malformed,
    /// `typ` is missing or different.
    #[error("is not an access token (`typ` must be `at+jwt`)")]
    Type,
    /// `none`, a shared-secret algorithm, or an unknown one.
    #[error("is signed with an algorithm that is not accepted")]
    Algorithm,
    /// `crit` is present; no extension is supported.
    #[error("has critical header parameters that are not supported")]
    Critical,
    /// No published key has this id and fits the algorithm.
    #[error("is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// The signature does not match.
    #[error("has an invalid signature")]
    Signature,
    /// `exp` is in the past.
    #[error("has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("is not valid yet")]
    Early,
    /// `iss` names another issuer.
    #[error("was issued by another issuer")]
    Issuer,
    /// `aud` does not name this service.
    #[error("is for another audience")]
    Audience,
    /// An ID token.
    #[error("is an ID token, not an access token")]
    IdToken,
    /// The token was issued to a client that is not configured.
    #[error("was issued to another client")]
    Client,
    /// The user claim is missing or invalid.
    #[error("has no valid user id")]
    Subject,
    /// The issuer has not verified the e-mail address used as user id.
    #[error("has an e-mail address that the issuer has not verified")]
    Unverified,
}
