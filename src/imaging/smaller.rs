//! Keeps renditions at most as large in bytes as their source.

use serde::{Deserialize, Serialize};

use super::encode::encode;
use super::error::Error;
use super::pixels::Pixels;
use super::preset::{Effort, OutputFormat};
use super::sniff::SourceFormat;
use super::tuning::Tuning;

/// Format of a rendition: the requested one, or the source's if nothing else is small enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RenditionFormat {
    /// Encoded by this program.
    Output(OutputFormat),
    /// The source without metadata.
    Source(SourceFormat),
}

impl RenditionFormat {
    /// Returns the name in API responses: `jpeg`, `webp`, `png`, `avif`, `gif`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Output(format) => format.as_str(),
            Self::Source(format) => format.as_str(),
        }
    }

    /// Returns the file extension without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Output(format) => format.extension(),
            Self::Source(format) => format.extension(),
        }
    }

    /// Returns the media type for `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Output(format) => format.media_type(),
            Self::Source(format) => format.media_type(),
        }
    }
}

/// Size limit of a rendition.
pub(super) struct Bound<'a> {
    /// Size of the source in bytes.
    pub bytes: usize,
    /// Format of the source.
    pub format: SourceFormat,
    /// The source without metadata, if it has the rendition's exact pixels and may replace it.
    pub stripped: Option<&'a [u8]>,
}

/// Fallback qualities, with the typical bytes of lossy formats in hundredths of those at 80. The estimates only choose
/// the first quality to try; results are measured.
const QUALITIES: [(u8, u64); 11] =
    [(95, 230), (90, 155), (80, 100), (70, 78), (60, 66), (50, 58), (40, 50), (30, 42), (20, 32), (10, 20), (5, 13)];

/// Returns the maximum pixels for encoding again if the stripped source can replace the rendition; otherwise larger
/// images are encoded again with less effort.
const fn most_retried_pixels(format: OutputFormat) -> u64 {
    match format {
        OutputFormat::Avif => 1 << 20,
        _ => 4 << 20,
    }
}

/// Returns the maximum pixels for unrequested lossless encoding, which takes about a second and
/// [`LOSSLESS_BYTES`](super::encode::LOSSLESS_BYTES) per pixel. A lossy photograph never gets smaller without loss,
/// except a very small one.
pub(super) const fn most_lossless_pixels(source: SourceFormat) -> u64 {
    match source {
        SourceFormat::Jpeg => 1 << 16,
        _ => 2 << 20,
    }
}

type Encoded = (RenditionFormat, Vec<u8>);

/// Encodes `pixels` within the source's size: as `tuning` says if that is small enough, otherwise as the smallest of a
/// lower quality, a lossless encoding and the stripped source.
///
/// A lossless format stays lossless as long as possible. If nothing is small enough, the result is the smallest
/// encoding.
pub(super) fn encode_within(
    pixels: &Pixels,
    format: OutputFormat,
    tuning: Tuning,
    bound: &Bound<'_>,
) -> Result<Encoded, Error> {
    let first = encode(pixels, format, tuning)?;
    let first_bytes = first.len();
    let mut search = Search { pixels, tuning, most: bound.bytes, found: Vec::new() };
    search.add(RenditionFormat::Output(format), first);
    if search.is_over() {
        return search.smallest();
    }
    let count = u64::from(pixels.width) * u64::from(pixels.height);
    if let Some(stripped) = bound.stripped {
        search.add(RenditionFormat::Source(bound.format), stripped.to_vec());
        if search.is_over() && count > most_retried_pixels(format) {
            return search.smallest();
        }
    }
    let lossless = count <= most_lossless_pixels(bound.format);
    match format {
        OutputFormat::Webp if lossless => search.try_lossless(OutputFormat::WebpLossless, Effort::Balanced)?,
        OutputFormat::Png if lossless => search.try_lossless(OutputFormat::Png, Effort::Small)?,
        _ => {}
    }
    if !format.is_lossless() {
        search.try_lower(format, first_bytes)?;
    }
    // Below about 600 bytes a JPEG is mostly header, and a PNG of few colors is larger than one with a palette.
    for other in [OutputFormat::Png, OutputFormat::WebpLossless] {
        if lossless && !search.is_over() {
            search.try_lossless(other, Effort::Small)?;
        }
    }
    if format.is_lossless() && !search.is_over() {
        let best = encode(pixels, OutputFormat::Webp, Tuning { quality: QUALITIES[0].0, ..tuning })?;
        let bytes = best.len();
        search.add(RenditionFormat::Output(OutputFormat::Webp), best);
        if !search.is_over() {
            search.tuning.quality = QUALITIES[0].0;
            search.try_lower(OutputFormat::Webp, bytes)?;
        }
    }
    search.smallest()
}

/// Encodings tried so far.
struct Search<'a> {
    pixels: &'a Pixels,
    tuning: Tuning,
    /// Maximum bytes.
    most: usize,
    found: Vec<Encoded>,
}

impl Search<'_> {
    /// Returns whether one of them is small enough.
    fn is_over(&self) -> bool {
        self.found.iter().any(|(_, bytes)| bytes.len() <= self.most)
    }

    fn add(&mut self, format: RenditionFormat, bytes: Vec<u8>) {
        self.found.push((format, bytes));
    }

    fn smallest(self) -> Result<Encoded, Error> {
        let smallest = self.found.into_iter().min_by_key(|(_, bytes)| bytes.len());
        smallest.ok_or_else(|| Error::Internal("nothing was encoded".into()))
    }

    fn try_lossless(&mut self, format: OutputFormat, effort: Effort) -> Result<(), Error> {
        let bytes = encode(self.pixels, format, Tuning { effort, ..self.tuning })?;
        self.add(RenditionFormat::Output(format), bytes);
        Ok(())
    }

    /// Adds the first lower quality that is small enough, or the last one. `known` is the size at the requested
    /// quality; it determines the first quality worth trying.
    fn try_lower(&mut self, format: OutputFormat, known: usize) -> Result<(), Error> {
        let asked_for = self.tuning.quality;
        let share_of = |quality: u8| {
            QUALITIES
                .iter()
                .find(|(step, _)| *step <= quality)
                .map_or(QUALITIES[QUALITIES.len() - 1].1, |(_, share)| *share)
        };
        let now = share_of(asked_for);
        let expected = |share: u64| known as u64 * share / now;
        let lower: Vec<_> = QUALITIES.iter().filter(|(quality, _)| *quality < asked_for).collect();
        let hopeless = lower.iter().take_while(|(_, share)| expected(*share) > self.most as u64).count();
        let count = u64::from(self.pixels.width) * u64::from(self.pixels.height);
        let effort = if count > most_retried_pixels(format) { Effort::Fast } else { self.tuning.effort };
        for (quality, _) in lower.iter().skip(hopeless.min(lower.len().saturating_sub(1))) {
            let bytes = encode(self.pixels, format, Tuning { quality: *quality, effort })?;
            let small_enough = bytes.len() <= self.most;
            self.add(RenditionFormat::Output(format), bytes);
            if small_enough {
                break;
            }
        }
        Ok(())
    }
}
