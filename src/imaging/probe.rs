//! Inspects an image and estimates its cost without decoding it.

use super::encode::{LOSSLESS_BYTES, encoder_bytes};
use super::error::Error;
use super::geometry::contain;
use super::header::{self, Header};
use super::limits::Limits;
use super::orient::upright;
use super::preset::OutputFormat;
use super::smaller::most_lossless_pixels;
use super::sniff::SourceFormat;

/// Facts from an image's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Format, detected by content.
    pub format: SourceFormat,
    /// Upright width in pixels.
    pub width: u32,
    /// Upright height in pixels.
    pub height: u32,
    /// EXIF orientation as stored, 1 to 8; 1 is upright.
    pub orientation: u8,
    /// Peak memory of [`process`](super::process) in bytes, including the source, for JPEG and lossy WebP renditions up
    /// to 2,048 pixels per side. [`memory_needed`](super::memory_needed()) computes it for any presets.
    pub cost_bytes: u64,
    /// Whether the file has several frames; only the first is read.
    pub animated: bool,
    /// Whether the file is truncated.
    pub truncated: bool,
}

/// Rendition side assumed by [`Probe::cost_bytes`].
const USUAL_SIDE: u32 = 2_048;

/// Fixed memory: tables, buffers, small renditions.
const BASE_BYTES: u64 = 8 << 20;

/// Reads the headers of `source` in linear time; never decodes or panics.
///
/// # Errors
/// Every [`Error`] except [`Error::Internal`]: unsupported, over a limit, or visibly damaged.
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

/// Returns the peak memory of an image whose largest rendition is made from `largest` stored pixels, with encoders that
/// need at most `encoding` bytes more.
pub(super) fn cost(source_bytes: usize, header: &Header, largest: (u32, u32), encoding: u64) -> u64 {
    let channels = u64::from(header.channels);
    let decoded = header.pixels() * channels;
    let largest_pixels = u64::from(largest.0) * u64::from(largest.1);
    let scaling = if largest == (header.width, header.height) {
        0
    } else {
        // Horizontally scaled rows, the premultiplied copy with alpha, and the result.
        let narrow = u64::from(largest.0) * u64::from(header.height) * channels;
        let multiplied = if channels == 4 { decoded } else { 0 };
        narrow + multiplied + largest_pixels * channels
    };
    // Color conversion and orientation each make one copy, then encoders run. The decoded image is freed by then,
    // unless it is the largest rendition itself.
    let finishing = largest_pixels * channels + encoding.max(largest_pixels * channels);
    let lossless = largest_pixels.min(most_lossless_pixels(header.format)) * LOSSLESS_BYTES;
    source_bytes as u64 + BASE_BYTES + header.decode_bytes.max(decoded + scaling).max(finishing).max(lossless)
}
