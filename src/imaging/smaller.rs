//! Sees to it that no rendition has more bytes than the file it was made from.

use super::encode::{Tuning, encode, encode_lossless};
use super::error::Error;
use super::pixels::Pixels;
use super::preset::OutputFormat;
use super::sniff::SourceFormat;

/// The format of a rendition: the one that was asked for, or the source's own where nothing else was small enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RenditionFormat {
    /// Encoded by us.
    Output(OutputFormat),
    /// The source without its metadata.
    Source(SourceFormat),
}

impl RenditionFormat {
    /// The name in answers: `jpeg`, `webp`, `png`, `gif`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Output(format) => format.as_str(),
            Self::Source(format) => format.as_str(),
        }
    }

    /// The ending of a file's name, without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Output(format) => format.extension(),
            Self::Source(format) => format.extension(),
        }
    }

    /// The value of `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Output(format) => format.media_type(),
            Self::Source(format) => format.media_type(),
        }
    }
}

/// What a rendition is measured against.
pub(super) struct Bound<'a> {
    /// Bytes of the source.
    pub bytes: usize,
    /// The source's format.
    pub format: SourceFormat,
    /// The source without metadata, where the rendition has its very pixels and it may stand in for it.
    pub stripped: Option<&'a [u8]>,
}

/// Qualities that are tried in turn until the outcome is small enough; the last four only where nothing else is.
const LOWER: [u8; 4] = [70, 60, 50, 40];
const LOWEST: [u8; 4] = [30, 20, 10, 5];

/// Without loss only so many pixels of a `source` of this format are encoded, for it takes about a second and
/// [`LOSSLESS_BYTES`] a pixel. A photograph that came with losses never gets smaller without, save for a very small one.
pub(super) const fn most_lossless_pixels(source: SourceFormat) -> u64 {
    match source {
        SourceFormat::Jpeg => 1 << 16,
        _ => 2 << 20,
    }
}

/// Peak memory of lossless encoding, in bytes a pixel (libwebp's, which takes more than PNG's; measured 25).
pub(super) const LOSSLESS_BYTES: u64 = 32;

type Encoded = (RenditionFormat, Vec<u8>);

/// Encodes `pixels`, no larger than the source: as `tuning` says if that is small enough, else as the smallest of a lower
/// quality, a lossless form and the stripped source. If not one of them is small enough, as the smallest of all.
pub(super) fn encode_within(
    pixels: &Pixels,
    format: OutputFormat,
    tuning: Tuning,
    bound: &Bound<'_>,
) -> Result<Encoded, Error> {
    let output = RenditionFormat::Output(format);
    let first = encode(pixels, format, tuning)?;
    if first.len() <= bound.bytes {
        return Ok((output, first));
    }
    let mut found: Vec<Encoded> = vec![(output, first)];
    if let Some(stripped) = bound.stripped {
        found.push((RenditionFormat::Source(bound.format), stripped.to_vec()));
    }
    let lossless = u64::from(pixels.width) * u64::from(pixels.height) <= most_lossless_pixels(bound.format);
    if lossless && format != OutputFormat::Jpeg {
        found.push((output, encode_lossless(pixels, format)?));
    }
    let lossy = format != OutputFormat::Png;
    if lossy {
        try_qualities(pixels, format, &LOWER, tuning, bound.bytes, &mut found)?;
    }
    if lossy && found.iter().all(|(_, bytes)| bytes.len() > bound.bytes) {
        try_qualities(pixels, format, &LOWEST, tuning, bound.bytes, &mut found)?;
    }
    // Below some 600 bytes a JPEG is all header, and a PNG of few colours is larger than one with a palette.
    for other in [OutputFormat::Png, OutputFormat::Webp] {
        if lossless && found.iter().all(|(_, bytes)| bytes.len() > bound.bytes) {
            found.push((RenditionFormat::Output(other), encode_lossless(pixels, other)?));
        }
    }
    found.into_iter().min_by_key(|(_, bytes)| bytes.len()).ok_or_else(|| Error::Internal("nothing was encoded".into()))
}

/// Adds the outcome of the first of `qualities` that is small enough, or of the last.
fn try_qualities(
    pixels: &Pixels,
    format: OutputFormat,
    qualities: &[u8],
    asked_for: Tuning,
    most: usize,
    found: &mut Vec<Encoded>,
) -> Result<(), Error> {
    for quality in qualities.iter().filter(|quality| **quality < asked_for.quality) {
        let bytes = encode(pixels, format, Tuning { quality: *quality, ..asked_for })?;
        let small_enough = bytes.len() <= most;
        found.push((RenditionFormat::Output(format), bytes));
        if small_enough {
            break;
        }
    }
    Ok(())
}
