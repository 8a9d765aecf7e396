//! Common output of all decoders, and conversion of inks to RGB.

use super::pixels::Pixels;
use super::warning::Warning;

/// Gray value of pixels that a truncated file lacks.
pub(super) const MISSING: u8 = 0x80;

/// A truncated file is shown if at least one of this many samples exists.
pub(super) const MIN_SHARE: usize = 32;

/// Returns whether enough of `data` differs from [`MISSING`].
pub(super) fn is_worth_showing(data: &[u8]) -> bool {
    data.iter().filter(|byte| **byte != MISSING).count() >= data.len() / MIN_SHARE
}

/// Pixels in the file's orientation and colors, and a warning, if any.
pub(super) struct Decoded {
    pub pixels: Pixels,
    /// [`Warning::Truncated`] or [`Warning::Damaged`].
    pub warning: Option<Warning>,
}

/// Encoding of CMYK inks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inks {
    /// 255 is full ink.
    Plain,
    /// 0 is full ink, as Adobe programs write JPEG.
    Inverted,
}

/// Converts CMYK to RGB in place, as browsers do without the printer's profile: each sample is the light that no ink
/// absorbs.
pub(super) fn inks_to_light(pixels: &mut Pixels, inks: Inks) {
    for pixel in pixels.data.chunks_exact_mut(4) {
        let light = |ink: u8| u32::from(if inks == Inks::Plain { 255 - ink } else { ink });
        let black = light(pixel[3]);
        for sample in &mut pixel[..3] {
            *sample = ((light(*sample) * black + 127) / 255) as u8;
        }
    }
    pixels.drop_fourth();
}
