//! Decodes the first page of a TIFF by strips or tiles. A damaged file is decoded as far as possible.

mod chunk;
mod color;
mod predict;
mod samples;
mod unpack;

use chunk::{read_jpeg, read_plane};
use color::Colors;
use samples::Narrowing;

use super::decoded::{Decoded, Inks, MIN_SHARE, MISSING, inks_to_light};
use super::error::{Error, Excess};
use super::header::tiff::{Alpha, Layout, Meaning, Packing, layout};
use super::limits::Limits;
use super::pixels::Pixels;
use super::warning::Warning;

/// Maximum total of packed bytes, as a multiple of the file: strips and tiles may share bytes only to this extent.
const MAX_SHARING: usize = 4;
const SHARED_BYTES: usize = 64 << 20;

/// Decodes the first page of `source`.
///
/// # Errors
/// As [`layout`]; [`Error::Undecodable`] if almost no pixels exist; [`Error::TooComplex`] if strips or tiles share
/// their bytes too often.
pub(super) fn decode(source: &[u8], limits: &Limits) -> Result<Decoded, Error> {
    let layout = layout(source, limits)?;
    let mut page = Page::new(source, &layout, limits);
    let (across, down) = layout.chunks();
    for y in 0..down {
        for x in 0..across {
            page.add(x, y)?;
        }
    }
    page.finish()
}

/// The page decoded so far.
struct Page<'a> {
    source: &'a [u8],
    layout: &'a Layout<'a>,
    limits: &'a Limits,
    narrowing: Narrowing,
    colors: Colors,
    /// Packed bytes that may still be read.
    budget: usize,
    /// Buffers for one decompressed chunk and its samples.
    buffer: Vec<u8>,
    samples: Vec<u8>,
    pixels: Pixels,
    /// Number of pixels that exist.
    there: usize,
    truncated: bool,
    damaged: bool,
    /// Error of the first chunk without pixels.
    error: Option<Error>,
}

impl<'a> Page<'a> {
    fn new(source: &'a [u8], layout: &'a Layout<'a>, limits: &'a Limits) -> Self {
        let (width, height) = (layout.width, layout.height);
        let inks = layout.meaning == Meaning::Inks;
        let alpha = layout.alpha != Alpha::None || inks;
        let channels = if alpha { 4 } else { 3 };
        let mut data = vec![MISSING; width as usize * height as usize * channels];
        if alpha {
            // No black ink, or no transparency.
            data.chunks_exact_mut(4).for_each(|pixel| pixel[3] = if inks { 0 } else { 255 });
        }
        Self {
            source,
            layout,
            limits,
            narrowing: Narrowing::new(layout),
            colors: Colors::new(layout),
            budget: source.len().saturating_mul(MAX_SHARING) + SHARED_BYTES,
            buffer: Vec::new(),
            samples: Vec::new(),
            pixels: Pixels { width, height, alpha, data },
            there: 0,
            truncated: false,
            damaged: false,
            error: None,
        }
    }

    /// Returns the bytes of chunk `index` that exist in the file.
    fn packed(&mut self, index: usize) -> Result<&'a [u8], Error> {
        let Some((at, length)) = self.layout.place(index) else {
            self.truncated = true;
            return Ok(&[]);
        };
        let rest = self.source.get(at..).unwrap_or_default();
        self.truncated |= length != usize::MAX && length > rest.len();
        let packed = &rest[..length.min(rest.len())];
        self.budget = self.budget.checked_sub(packed.len()).ok_or(Error::TooComplex(Excess::Sharing))?;
        Ok(packed)
    }

    /// Decodes the chunk in column `x` and row `y` of the chunk grid.
    fn add(&mut self, x: u32, y: u32) -> Result<(), Error> {
        let layout = self.layout;
        let (across, down) = layout.chunks();
        let index = (y * across + x) as usize;
        let (left, top) = (x * layout.chunk.0, y * layout.chunk.1);
        if layout.packing == Packing::Jpeg {
            let packed = self.packed(index)?;
            match read_jpeg(packed, layout, self.limits) {
                Ok((part, damaged)) => {
                    self.damaged |= damaged;
                    self.lay(&part, left, top);
                }
                Err(error @ Error::Undecodable { .. }) => _ = self.error.get_or_insert(error),
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        let below = if layout.tiled { u32::MAX } else { layout.height - top };
        let rows = layout.chunk.1.min(below) as usize;
        let pixels = layout.chunk.0 as usize * rows;
        let mut samples = std::mem::take(&mut self.samples);
        let mut buffer = std::mem::take(&mut self.buffer);
        samples.resize(pixels * layout.samples, 0);
        let planes = if layout.planes { layout.samples } else { 1 };
        let mut there = pixels;
        for plane in 0..planes {
            let packed = self.packed(index + plane * (across * down) as usize)?;
            let read = read_plane(packed, layout, &self.narrowing, rows, &mut samples[plane..], &mut buffer);
            there = there.min(read);
        }
        self.place(&samples, there, left, top);
        (self.samples, self.buffer) = (samples, buffer);
        Ok(())
    }

    /// Copies the first `there` pixels of a chunk to their position.
    fn place(&mut self, samples: &[u8], there: usize, left: u32, top: u32) {
        let (width, count) = (self.layout.chunk.0 as usize, self.layout.samples);
        let channels = self.pixels.channels();
        let visible = width.min((self.layout.width - left) as usize);
        let rows = (self.layout.height - top) as usize;
        for (row, line) in samples.chunks(width * count).take(rows).enumerate() {
            let whole = visible.min(there.saturating_sub(row * width));
            let at = ((top as usize + row) * self.layout.width as usize + left as usize) * channels;
            let target = self.pixels.data[at..].chunks_exact_mut(channels).take(whole);
            for (pixel, target) in line.chunks_exact(count).zip(target) {
                self.damaged |= !self.colors.set(pixel, target);
            }
            self.there += whole;
        }
    }

    /// Copies a decoded JPEG chunk to its position; inks are already RGB.
    fn lay(&mut self, part: &Pixels, left: u32, top: u32) {
        let (from, to) = (part.channels(), self.pixels.channels());
        let visible = part.width.min(self.layout.width - left) as usize;
        let rows = part.height.min(self.layout.height - top) as usize;
        let white_is_zero = self.layout.meaning == Meaning::Gray { white_is_zero: true };
        let inverted = white_is_zero || self.layout.meaning == Meaning::Inks;
        for (row, line) in part.data.chunks_exact(part.width as usize * from).take(rows).enumerate() {
            let at = ((top as usize + row) * self.layout.width as usize + left as usize) * to;
            let target = self.pixels.data[at..].chunks_exact_mut(to).take(visible);
            for (pixel, target) in line.chunks_exact(from).zip(target) {
                // Convert RGB back to inks without black, so that all chunks of the page have the same encoding.
                let sample = |sample: &u8| if inverted { 255 - sample } else { *sample };
                target[..3].copy_from_slice(&[sample(&pixel[0]), sample(&pixel[1]), sample(&pixel[2])]);
            }
            self.there += visible;
        }
    }

    fn finish(mut self) -> Result<Decoded, Error> {
        let count = self.pixels.width as usize * self.pixels.height as usize;
        if self.there < count.div_ceil(MIN_SHARE) {
            return Err(self.error.unwrap_or_else(|| Error::damaged("almost none of its pixels can be read")));
        }
        if self.layout.meaning == Meaning::Inks {
            inks_to_light(&mut self.pixels, Inks::Plain);
        }
        let warning = match (self.there < count, self.truncated, self.damaged) {
            (true, true, _) => Some(Warning::Truncated),
            (false, _, false) => None,
            _ => Some(Warning::Damaged),
        };
        Ok(Decoded { pixels: self.pixels, warning })
    }
}
