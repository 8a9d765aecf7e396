//! What the headers of a file say, one reader a format. No pixel is decoded here, no memory is taken in proportion to
//! what a header claims, and every reader looks at each byte of the file at most once.

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

/// Everything the later steps need to know before they decode.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub format: SourceFormat,
    /// Pixels across, as stored.
    pub width: u32,
    /// Pixels down, as stored.
    pub height: u32,
    /// EXIF orientation, 1 to 8; 1 is upright.
    pub orientation: u8,
    /// Bytes of the file that belong to the picture; what follows them is never decoded or passed on.
    pub end: usize,
    /// The file ends before the picture does.
    pub truncated: bool,
    /// The file has an end, but some of the picture's data are missing before it.
    pub gaps: bool,
    /// There are more frames than the first.
    pub animated: bool,
    /// The colour profile, unpacked.
    pub profile: Option<Vec<u8>>,
    /// A colour profile was there but could not be unpacked.
    pub profile_broken: bool,
    /// Samples of a pixel as stored: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha or CMYK.
    pub samples: u8,
    /// Four samples a pixel that are inks, not light.
    pub cmyk: bool,
    /// All samples stand in one scan that is not progressive (JPEG).
    pub one_scan: bool,
    /// Samples of a decoded pixel: 3, or 4 with transparency.
    pub channels: u8,
    /// Peak memory of the decoder, its output included and the file not, in bytes.
    pub decode_bytes: u64,
}

impl Header {
    /// A whole, upright, still picture without a profile; the readers set what differs.
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

    /// Pixels in all.
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Reads the headers of `source` and checks its size, scans and profile against the limits.
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
