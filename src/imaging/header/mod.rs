//! Reads file headers, with one reader per format.
//!
//! No pixel is decoded, memory does not depend on claimed sizes, and every reader visits each byte at most once.

pub(in crate::imaging) mod avif;
pub(in crate::imaging) mod bmp;
mod boxes;
mod coverage;
mod directory;
pub(in crate::imaging) mod exif;
pub(in crate::imaging) mod gif;
mod items;
pub(in crate::imaging) mod jpeg;
pub(in crate::imaging) mod png;
pub(in crate::imaging) mod tiff;
pub(in crate::imaging) mod webp;

use super::error::Error;
use super::limits::Limits;
use super::sniff::{SourceFormat, sniff};

/// Everything that the later steps need before decoding.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub format: SourceFormat,
    /// Stored width in pixels.
    pub width: u32,
    /// Stored height in pixels.
    pub height: u32,
    /// EXIF orientation, 1 to 8; 1 is upright.
    pub orientation: u8,
    /// End of the image in the file; later bytes are never decoded or copied.
    pub end: usize,
    /// The file ends before the image.
    pub truncated: bool,
    /// The file has an end marker, but image data before it is missing.
    pub gaps: bool,
    /// The file has more than one frame.
    pub animated: bool,
    /// Decompressed color profile.
    pub profile: Option<Vec<u8>>,
    /// A color profile exists but is invalid.
    pub profile_broken: bool,
    /// Stored samples per pixel: 1 gray, 2 gray and alpha, 3 color, 4 color and alpha or CMYK.
    pub samples: u8,
    /// The four samples per pixel are inks (CMYK).
    pub cmyk: bool,
    /// All samples are in one non-progressive scan (JPEG).
    pub one_scan: bool,
    /// Samples per decoded pixel: 3, or 4 with transparency.
    pub channels: u8,
    /// Peak memory of the decoder in bytes: including its output, excluding the file.
    pub decode_bytes: u64,
}

impl Header {
    /// Creates a header of a complete, upright, still image without a profile; readers set what differs.
    pub(super) fn new(format: SourceFormat, width: u32, height: u32, end: usize) -> Self {
        Self {
            format,
            width,
            height,
            orientation: 1,
            end,
            truncated: false,
            gaps: false,
            animated: false,
            profile: None,
            profile_broken: false,
            samples: 3,
            cmyk: false,
            one_scan: false,
            channels: 3,
            decode_bytes: 0,
        }
    }

    /// Returns the number of pixels.
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Reads the headers of `source` and checks size, scans and profile against the limits.
pub(super) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let header = match sniff(source)? {
        SourceFormat::Jpeg => jpeg::read(source, limits)?,
        SourceFormat::Png => png::read(source, limits)?,
        SourceFormat::Webp => webp::read(source, limits)?,
        SourceFormat::Gif => gif::read(source, limits)?,
        SourceFormat::Bmp => bmp::read(source, limits)?,
        SourceFormat::Tiff => tiff::read(source, limits)?,
        SourceFormat::Avif => avif::read(source, limits)?,
    };
    limits.check_size(header.width, header.height)?;
    Ok(header)
}
