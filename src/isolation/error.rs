//! Errors of decoding in isolation.

use std::{io, time::Duration};

use super::SandboxLayers;
use crate::{code::ErrorCode, imaging};

/// Why an image was not decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is invalid or exceeds a limit; a retry cannot help.
    #[error(transparent)]
    DecodeTask(#[from] imaging::Error),
    /// The image exceeds the CPU time limit.
    #[error("Decoding the image takes more than {} s of CPU time.", .0.as_secs())]
    TooSlow(Duration),
    /// The decoder crashed or was killed; the text says how. The image may be the cause.
    #[error("The image's decoder {0}.")]
    Died(String),
    /// A required sandbox layer is missing; the image was not decoded.
    #[error("The decoder sandbox has no {}; PM_ISOLATION=require needs every layer.", names(.0))]
    Unprotected(SandboxLayers),
    /// No decoder can be started.
    #[error("cannot start a decoder process")]
    NotStarted(#[source] io::Error),
}

impl Error {
    /// Returns the error code for clients.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::DecodeTask(error) => error.code(),
            Self::TooSlow(_) => ErrorCode::TooComplex,
            Self::Died(_) => ErrorCode::Poison,
            Self::Unprotected(_) | Self::NotStarted(_) => ErrorCode::Internal,
        }
    }

    /// Returns whether a retry may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Died(_) | Self::Unprotected(_) | Self::NotStarted(_))
    }

    /// Returns whether the system, not the image, is the cause.
    pub const fn is_of_the_system(&self) -> bool {
        matches!(self, Self::Unprotected(_) | Self::NotStarted(_))
    }
}

fn names(layers: &SandboxLayers) -> String {
    layers.missing().iter().map(|layer| layer.name).collect::<Vec<_>>().join(", no ")
}
