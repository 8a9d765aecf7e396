//! Decodes Windows and OS/2 bitmaps. Invalid files that programs commonly show are decoded too, with a warning if
//! colors were guessed.

mod masks;
mod outcome;
mod rows;
mod runs;

use super::decoded::{Decoded, MIN_SHARE};
use super::error::Error;
use super::header::bmp::{Coding, Layout, layout};
use super::limits::Limits;
use super::pixels::Pixels;
use super::warning::Warning;

/// Decodes `source`.
///
/// # Errors
/// As [`layout`]; [`Error::Undecodable`] if almost no pixels exist.
pub(super) fn decode(source: &[u8], limits: &Limits) -> Result<Decoded, Error> {
    let layout = layout(source, limits)?;
    let count = layout.width as usize * layout.height as usize;
    let palette = palette(source, &layout);
    let data = source.get(layout.pixels_at..).unwrap_or_default();
    let (mut pixels, outcome) = match layout.coding {
        Coding::Indices(bits) => rows::from_palette(data, &layout, bits, &palette),
        Coding::Bytes => rows::from_bytes(data, &layout),
        Coding::Masked { bytes, masks } => rows::from_masks(data, &layout, bytes, masks),
        Coding::IndexRuns(_) | Coding::ColorRuns => runs::decode(data, &layout, &palette),
    };
    if outcome.pixels < count.div_ceil(MIN_SHARE) {
        return Err(Error::damaged("it ends before its pixels"));
    }
    show_if_all_is_transparent(&mut pixels, &layout);
    let warning = if outcome.pixels < count {
        Some(Warning::Truncated)
    } else {
        (outcome.damaged || layout.guessed).then_some(Warning::Damaged)
    };
    Ok(Decoded { pixels, warning })
}

/// Returns the palette in RGB; missing entries are black.
fn palette(source: &[u8], layout: &Layout) -> Vec<[u8; 3]> {
    let (at, colors, entry) = layout.palette;
    let stored = source.get(at..).unwrap_or_default().chunks_exact(entry).take(colors);
    stored.map(|color| [color[2], color[1], color[0]]).collect()
}

/// Makes a fully transparent image opaque: programs without alpha support write zeros in its mask.
fn show_if_all_is_transparent(pixels: &mut Pixels, layout: &Layout) {
    let by_mask = matches!(layout.coding, Coding::Masked { .. });
    if by_mask && pixels.alpha && pixels.data.chunks_exact(4).all(|pixel| pixel[3] == 0) {
        pixels.drop_fourth();
    }
}
