//! Why a decoder did not do its work.

use std::{io, time::Duration};

use super::Walls;
use crate::{code::ErrorCode, imaging};

/// Why there is nothing of a picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The picture cannot be had, however often it is tried.
    #[error(transparent)]
    Picture(#[from] imaging::Error),
    /// The picture takes more processor time than is spent on one.
    #[error("The picture takes more than {} s of processor time.", .0.as_secs())]
    TooSlow(Duration),
    /// The decoder died, or had to be ended; the sentence says how. It may be the picture's fault.
    #[error("The picture's decoder {0}.")]
    Died(String),
    /// The walls that have to stand around a decoder do not; the image was not looked at.
    #[error("A decoder has no {}, and PM_ISOLATION=require decodes nothing without.", names(.0))]
    Unprotected(Walls),
    /// No decoder can be started.
    #[error("no decoder can be started")]
    NotStarted(#[source] io::Error),
}

impl Error {
    /// The code of the closed list that stands for this error.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Picture(error) => error.code(),
            Self::TooSlow(_) => ErrorCode::TooComplex,
            Self::Died(_) => ErrorCode::Poison,
            Self::Unprotected(_) | Self::NotStarted(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same picture may fare better later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Died(_) | Self::Unprotected(_) | Self::NotStarted(_))
    }

    /// Whether no image can be decoded here, whatever it is.
    pub const fn is_of_the_system(&self) -> bool {
        matches!(self, Self::Unprotected(_) | Self::NotStarted(_))
    }
}

fn names(walls: &Walls) -> String {
    walls.missing().iter().map(|wall| wall.name).collect::<Vec<_>>().join(", no ")
}
