//! Errors of image processing. Each message is a sentence for the person who uploaded the image.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;

/// Why an image was not processed. A retry with the same bytes cannot help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// The file has no bytes.
    #[error("The image has no bytes.")]
    Empty,
    /// The format is not supported; `kind` names it, with its article.
    #[error("The file is {kind}; supported formats are JPEG, PNG, WebP, AVIF, GIF, BMP and TIFF.")]
    UnsupportedFormat {
        /// Detected kind: `an SVG drawing`, `an HTML page`, `a HEIC image`.
        kind: Cow<'static, str>,
    },
    /// The image exceeds [`Limits::max_pixels`](super::Limits::max_pixels).
    #[error(
        "The image is {width} × {height} pixels, {} megapixels; the limit is {} megapixels.",
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
    /// A side exceeds [`Limits::max_side`](super::Limits::max_side).
    #[error("The image is {width} × {height} pixels; the limit is {max_side} pixels per side.")]
    SideTooLong {
        /// Width as stored, in pixels.
        width: u32,
        /// Height as stored, in pixels.
        height: u32,
        /// The limit, in pixels.
        max_side: u32,
    },
    /// The image needs more memory or work than the limit.
    #[error("The image is too complex: {0}.")]
    TooComplex(Excess),
    /// The image is damaged.
    #[error("The image is damaged: {reason}.")]
    Undecodable {
        /// Reason.
        reason: Cow<'static, str>,
    },
    /// An encoder failed: a bug in this program, not a defect of the image.
    #[error("Processing the image failed because of a bug in pm: {0}.")]
    Internal(Cow<'static, str>),
}

/// Which limit an image exceeds that is [`Error::TooComplex`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Excess {
    /// Peak memory while decoding.
    #[error("it needs {} MiB of memory; the limit is {} MiB", needed.div_ceil(1 << 20), limit >> 20)]
    Memory {
        /// Bytes that decoding needs.
        needed: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// Scans of a progressive JPEG.
    #[error("it has {found} scans; the limit for its size is {limit}")]
    Scans {
        /// Scans in the file.
        found: u32,
        /// Limit for an image of this size.
        limit: u32,
    },
    /// Pixels of all tiles, including those outside the image.
    #[error("its tiles have {padded} pixels; the limit is {limit}")]
    Tiles {
        /// Pixels of all tiles.
        padded: u64,
        /// Limit in pixels.
        limit: u64,
    },
    /// Frames in the data of one still image.
    #[error("its data has {found} frames; the limit is {limit}")]
    Frames {
        /// Frames in the data.
        found: u32,
        /// Limit for a still image.
        limit: u32,
    },
    /// Parts of a TIFF that reference the same bytes repeatedly.
    #[error("its parts repeat the same bytes too often")]
    Sharing,
    /// Size of the decompressed color profile.
    #[error("its decompressed color profile has more than {} KiB", limit >> 10)]
    Profile {
        /// Limit in bytes.
        limit: u64,
    },
}

impl Error {
    /// Returns the error code for clients.
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

    /// Returns whether a retry may succeed: never, because errors depend only on the bytes.
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

/// Formats megapixels with at most one decimal: `50.0` becomes `50`, and a small excess stays visible.
fn megapixels(pixels: u64) -> String {
    let tenths = pixels.div_ceil(100_000);
    if tenths.is_multiple_of(10) { format!("{}", tenths / 10) } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_contains_the_value_and_the_limit() {
        let error = Error::TooManyPixels { width: 50_000, height: 50_000, max_pixels: 50_000_000 };
        assert_eq!(
            error.to_string(),
            "The image is 50000 × 50000 pixels, 2500 megapixels; the limit is 50 megapixels."
        );
        let error = Error::TooManyPixels { width: 10_000, height: 5_001, max_pixels: 50_000_000 };
        assert!(error.to_string().contains("50.1 megapixels; the limit is 50 megapixels"), "{error}");
        let error = Error::TooComplex(Excess::Memory { needed: 600 << 20, limit: 512 << 20 });
        assert!(error.to_string().contains("600 MiB of memory; the limit is 512 MiB"), "{error}");
    }
}
