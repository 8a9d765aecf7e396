//! Windows and OS/2 bitmaps to pixels. What programs show in spite of a flaw is shown here too, with a warning where
//! colours had to be guessed.

mod masks;
mod outcome;
mod rows;
mod runs;

use super::decoded::{Decoded, LEAST_SHARE};
use super::error::Error;
use super::header::bmp::{Coding, Layout, layout};
use super::limits::Limits;
use super::pixels::Pixels;
use super::warning::Warning;

/// Decodes `source`.
///
/// # Errors
/// As [`layout`]; [`Error::Undecodable`] if next to no pixels are there.
pub(super) fn decode(source: &[u8], limits: &Limits) -> Result<Decoded, Error> {
    let layout = layout(source, limits)?;
    let count = layout.width as usize * layout.height as usize;
    let palette = palette(source, &layout);
    let data = source.get(layout.pixels_at..).unwrap_or_default();
    let (mut pixels, outcome) = match layout.coding {
        Coding::Indices(bits) => rows::from_palette(data, &layout, bits, &palette),
        Coding::Bytes => rows::from_bytes(data, &layout),
        Coding::Masked { bytes, masks } => rows::from_masks(data, &layout, bytes, masks),
        Coding::IndexRuns(_) | Coding::ColourRuns => runs::decode(data, &layout, &palette),
    };
    if outcome.pixels < count.div_ceil(LEAST_SHARE) {
        return Err(Error::damaged("it ends before its pixels"));
    }
    show_if_all_is_transparent(&mut pixels, &layout);
    let flaw = if outcome.pixels < count {
        Some(Warning::Truncated)
    } else {
        (outcome.damaged || layout.guessed).then_some(Warning::Damaged)
    };
    Ok(Decoded { pixels, flaw })
}

/// The colours of the palette, as red, green and blue; those that the file no longer has are black.
fn palette(source: &[u8], layout: &Layout) -> Vec<[u8; 3]> {
    let (at, colours, entry) = layout.palette;
    let stored = source.get(at..).unwrap_or_default().chunks_exact(entry).take(colours);
    stored.map(|colour| [colour[2], colour[1], colour[0]]).collect()
}

/// Programs that know no alpha write zeros where a mask says it is; a picture of nothing was never meant.
fn show_if_all_is_transparent(pixels: &mut Pixels, layout: &Layout) {
    let by_mask = matches!(layout.coding, Coding::Masked { .. });
    if by_mask && pixels.alpha && pixels.data.chunks_exact(4).all(|pixel| pixel[3] == 0) {
        pixels.drop_fourth();
    }
}
