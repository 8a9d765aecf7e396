//! What every decoder hands on: pixels as the file has them, and inks turned into light.

use super::pixels::Pixels;
use super::warning::Warning;

/// What stands, as grey, for whatever a cut-off file no longer has.
pub(super) const MISSING: u8 = 0x80;

/// Of a cut-off file at least one sample in so many must be there for the rest to be worth showing.
pub(super) const LEAST_SHARE: usize = 32;

/// Whether enough of `data` is not [`MISSING`].
pub(super) fn is_worth_showing(data: &[u8]) -> bool {
    data.iter().filter(|byte| **byte != MISSING).count() >= data.len() / LEAST_SHARE
}

/// Pixels in the orientation and the colours of the file, and what is wrong with them, if anything.
pub(super) struct Decoded {
    pub pixels: Pixels,
    /// [`Warning::Truncated`] or [`Warning::Damaged`].
    pub flaw: Option<Warning>,
}

/// How the four inks of a pixel are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inks {
    /// 255 is full ink.
    Plain,
    /// 0 is full ink, as Adobe's programs write JPEG.
    Inverted,
}

/// Turns cyan, magenta, yellow and black into red, green and blue, in place: light is what no ink takes away. Without
/// the printer's profile this is what browsers show.
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
