//! Why a picture was refused or could not be read. Every message is a sentence for the person who sent the picture.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;

/// Why there are no renditions. None of these goes away by trying again with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// The file has no bytes.
    #[error("The picture has no bytes.")]
    Empty,
    /// The bytes are none of the kinds that are read; `kind` names what they look like, with its article.
    #[error("The file is {kind}; the kinds that are read are JPEG, PNG, WebP, AVIF, GIF, BMP and TIFF.")]
    UnsupportedFormat {
        /// What the bytes look like: `an SVG drawing`, `an HTML page`, `a HEIC picture`.
        kind: Cow<'static, str>,
    },
    /// More pixels in all than [`Limits::max_pixels`](super::Limits::max_pixels).
    #[error(
        "The picture is {width} × {height} pixels, {} megapixels; at most {} megapixels are read.",
        megapixels(*.width as u64 * *.height as u64),
        megapixels(*.max_pixels)
    )]
    TooManyPixels {
        /// Width as stored, in pixels.
        width: u32,
        /// Height as stored, in pixels.
        height: u32,
        /// The limit, in pixels.
        max_pixels: u64,
    },
    /// One side is longer than [`Limits::max_side`](super::Limits::max_side).
    #[error("The picture is {width} × {height} pixels; a side of at most {max_side} pixels is read.")]
    SideTooLong {
        /// Width as stored, in pixels.
        width: u32,
        /// Height as stored, in pixels.
        height: u32,
        /// The limit, in pixels.
        max_side: u32,
    },
    /// It would take more memory or work than is spent on one picture.
    #[error("The picture is too costly to read: {0}.")]
    TooComplex(Excess),
    /// A known kind, but the pixels cannot be had.
    #[error("The picture is damaged: {reason}.")]
    Undecodable {
        /// What the decoder stumbled over.
        reason: Cow<'static, str>,
    },
    /// An encoder refused our own pixels: a fault of this program, not of the picture.
    #[error("The picture could not be processed because of a fault inside pm: {0}.")]
    Internal(Cow<'static, str>),
}

/// What there is too much of in a picture that is [`Error::TooComplex`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Excess {
    /// Peak memory while decoding.
    #[error("it needs {} MiB of memory, and {} MiB is the limit", needed.div_ceil(1 << 20), limit >> 20)]
    Memory {
        /// Bytes that decoding would take.
        needed: u64,
        /// Bytes that one picture may take.
        limit: u64,
    },
    /// Passes over the pixels of a progressive JPEG.
    #[error("it is stored in {found} scans, and {limit} is the limit for its size")]
    Scans {
        /// Scans in the file.
        found: u32,
        /// Scans that a picture of this size may have.
        limit: u32,
    },
    /// Pixels of all tiles of a picture, those outside the picture included.
    #[error("its tiles have {padded} pixels in all, and {limit} is the limit")]
    Tiles {
        /// Pixels of all tiles.
        padded: u64,
        /// Pixels that all tiles may have.
        limit: u64,
    },
    /// Frames in the data of one still picture.
    #[error("its data hold {found} frames, and {limit} is the limit")]
    Frames {
        /// Frames in the data.
        found: u32,
        /// Frames that a still picture may have.
        limit: u32,
    },
    /// Parts of a TIFF that stand for the same bytes again and again.
    #[error("its parts repeat the same bytes too often")]
    Sharing,
    /// The colour profile, unpacked.
    #[error("its colour profile unpacks to more than {} KiB", limit >> 10)]
    Profile {
        /// Bytes that a profile may have.
        limit: u64,
    },
}

impl Error {
    /// The code of the closed list that stands for this error.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Empty => ErrorCode::Empty,
            Self::UnsupportedFormat { .. } => ErrorCode::UnsupportedFormat,
            Self::TooManyPixels { .. } | Self::SideTooLong { .. } => ErrorCode::TooManyPixels,
            Self::TooComplex(_) => ErrorCode::TooComplex,
            Self::Undecodable { .. } => ErrorCode::Undecodable,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same bytes may fare better later: never, since nothing here depends on anything but the bytes.
    pub const fn is_transient(&self) -> bool {
        false
    }

    pub(super) fn unsupported(kind: impl Into<Cow<'static, str>>) -> Self {
        Self::UnsupportedFormat { kind: kind.into() }
    }

    pub(super) fn damaged(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Undecodable { reason: reason.into() }
    }
}

/// Pixels as megapixels with at most one decimal, so that `50.0` reads `50` and a limit passed by little still shows.
fn megapixels(pixels: u64) -> String {
    let tenths = pixels.div_ceil(100_000);
    if tenths.is_multiple_of(10) { format!("{}", tenths / 10) } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_the_figure_and_the_limit() {
        let error = Error::TooManyPixels { width: 50_000, height: 50_000, max_pixels: 50_000_000 };
        assert_eq!(
            error.to_string(),
            "The picture is 50000 × 50000 pixels, 2500 megapixels; at most 50 megapixels are read."
        );
        let error = Error::TooManyPixels { width: 10_000, height: 5_001, max_pixels: 50_000_000 };
        assert!(error.to_string().contains("50.1 megapixels; at most 50 megapixels"), "{error}");
        let error = Error::TooComplex(Excess::Memory { needed: 600 << 20, limit: 512 << 20 });
        assert!(error.to_string().contains("600 MiB of memory, and 512 MiB is the limit"), "{error}");
    }
}
