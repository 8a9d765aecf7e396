//! What a picture is and what it will cost, without decoding it.

use super::encode::{LOSSLESS_BYTES, encoder_bytes};
use super::error::Error;
use super::geometry::contain;
use super::header::{self, Header};
use super::limits::Limits;
use super::orient::upright;
use super::preset::OutputFormat;
use super::smaller::most_lossless_pixels;
use super::sniff::SourceFormat;

/// What the headers of a picture say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The format, by content.
    pub format: SourceFormat,
    /// Pixels across, once upright.
    pub width: u32,
    /// Pixels down, once upright.
    pub height: u32,
    /// EXIF orientation as stored, 1 to 8; 1 is upright.
    pub orientation: u8,
    /// Peak memory of [`process`](super::process) with JPEG and lossy WebP renditions up to 2,048 pixels a side, the
    /// source's own bytes included. [`memory_needed`](super::memory_needed()) says it for any presets.
    pub cost_bytes: u64,
    /// Whether there are more frames than the first, which alone is read.
    pub animated: bool,
    /// Whether the file ends before its picture does.
    pub truncated: bool,
}

/// The side of the renditions that [`Probe::cost_bytes`] allows for.
const USUAL_SIDE: u32 = 2_048;

/// What is taken whatever the size: tables, buffers, the small renditions.
const BASE_BYTES: u64 = 8 << 20;

/// Reads the headers of `source`. Never decodes, never panics, takes time in proportion to the bytes.
///
/// # Errors
/// Every [`Error`] but [`Error::Internal`]: not a picture that is read, over a limit, or visibly damaged.
pub fn probe(source: &[u8], limits: &Limits) -> Result<Probe, Error> {
    let header = header::read(source, limits)?;
    let usual = contain(header.width, header.height, USUAL_SIDE, USUAL_SIDE);
    let encoding = u64::from(usual.width) * u64::from(usual.height) * encoder_bytes(OutputFormat::Webp);
    let cost_bytes = cost(source.len(), &header, (usual.width, usual.height), encoding);
    limits.check_cost(cost_bytes)?;
    let (width, height) = upright(header.width, header.height, header.orientation);
    Ok(Probe {
        format: header.format,
        width,
        height,
        orientation: header.orientation,
        cost_bytes,
        animated: header.animated,
        truncated: header.truncated,
    })
}

/// Peak memory of a picture whose largest rendition is made from `largest` pixels, across and down as stored, and where
/// no encoder takes more than `encoding` bytes beyond those.
pub(super) fn cost(source_bytes: usize, header: &Header, largest: (u32, u32), encoding: u64) -> u64 {
    let channels = u64::from(header.channels);
    let decoded = header.pixels() * channels;
    let largest_pixels = u64::from(largest.0) * u64::from(largest.1);
    let scaling = if largest == (header.width, header.height) {
        0
    } else {
        // Rows made narrow but not yet fewer, the alpha-multiplied copy if there is alpha, and the outcome.
        let narrow = u64::from(largest.0) * u64::from(header.height) * channels;
        let multiplied = if channels == 4 { decoded } else { 0 };
        narrow + multiplied + largest_pixels * channels
    };
    // Colours and orientation each make one copy, then the encoders run; the decoded picture is gone by then unless
    // it is the largest rendition itself.
    let finishing = largest_pixels * channels + encoding.max(largest_pixels * channels);
    let lossless = largest_pixels.min(most_lossless_pixels(header.format)) * LOSSLESS_BYTES;
    source_bytes as u64 + BASE_BYTES + header.decode_bytes.max(decoded + scaling).max(finishing).max(lossless)
}
