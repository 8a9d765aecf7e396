//! Why a token is not believed. No message repeats anything of the token.

use std::sync::Arc;

use crate::code::ErrorCode;

/// Why nobody knows whom a token speaks for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The token is wrong; the same one will not be right later.
    #[error("the access token {0}")]
    Refused(Flaw),
    /// The issuer's keys are not known, so no token can be checked.
    #[error("the issuer's keys cannot be fetched")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// There can be no HTTP client.
    #[error("the HTTP client for the issuer's keys cannot be made")]
    Setup(#[source] Arc<reqwest::Error>),
}

impl Error {
    /// The code that clients see.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(_) => ErrorCode::InvalidToken,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Setup(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same token may be believed later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What is wrong with a token, as the end of the sentence "the access token …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Over [`MAX_TOKEN_BYTES`](super::MAX_TOKEN_BYTES).
    #[error("is longer than 8 KiB")]
    TooLong,
    /// Not three parts of Base64 with JSON in them.
    #[error("cannot be read")]
    Malformed,
    /// `typ` is another one, or missing.
    #[error("does not say that it is an access token (`typ` must be `at+jwt`)")]
    Type,
    /// `none`, one with a shared secret, or an unknown one.
    #[error("is signed by an algorithm that is not accepted")]
    Algorithm,
    /// `crit` names what has to be understood, and nothing of that kind is.
    #[error("has critical header parameters that are not understood")]
    Critical,
    /// No key of the issuer has this name and fits the algorithm.
    #[error("is signed by a key that the issuer does not publish")]
    UnknownKey,
    /// The signature is not the issuer's.
    #[error("has a wrong signature")]
    Signature,
    /// `exp` lies in the past.
    #[error("has expired")]
    Expired,
    /// `nbf` or `iat` lies in the future.
    #[error("is not valid yet")]
    Early,
    /// `iss` is another one.
    #[error("was issued by somebody else")]
    Issuer,
    /// `aud` does not name this service.
    #[error("is meant for another service")]
    Audience,
    /// It is an ID token.
    #[error("is an ID token, which is for its client alone")]
    IdToken,
    /// No client of this service asked for it.
    #[error("was issued to another client")]
    Client,
    /// The claim with the user's id is missing, or cannot be one.
    #[error("has no subject that can be a user")]
    Subject,
    /// The issuer has not verified the e-mail address that is to be the user's id.
    #[error("has an e-mail address that its issuer has not verified")]
    Unverified,
}
