//! Decodes uncompressed rows: palette indices, bytes, masked integers.

use super::masks::Mask;
use super::outcome::Outcome;
use crate::imaging::decoded::MISSING;
use crate::imaging::header::bmp::Layout;
use crate::imaging::pixels::Pixels;

/// Decodes palette indices of `bits` bits, highest bits first. An index without a color is black.
pub(super) fn from_palette(data: &[u8], layout: &Layout, bits: u8, palette: &[[u8; 3]]) -> (Pixels, Outcome) {
    let mut colors = [[0; 3]; 256];
    colors[..palette.len()].copy_from_slice(palette);
    let (bits, last) = (usize::from(bits), palette.len());
    let mut unknown = false;
    let (pixels, pixels_there) = fill::<3>(data, layout, bits, |row, x| {
        let byte = row[x * bits / 8];
        let index = usize::from(byte >> (8 - bits - x * bits % 8)) & ((1 << bits) - 1);
        unknown |= index >= last;
        colors[index]
    });
    (pixels, Outcome { pixels: pixels_there, damaged: unknown })
}

/// Decodes bytes: blue, green, red.
pub(super) fn from_bytes(data: &[u8], layout: &Layout) -> (Pixels, Outcome) {
    let (pixels, pixels_there) = fill::<3>(data, layout, 24, |row, x| [row[3 * x + 2], row[3 * x + 1], row[3 * x]]);
    (pixels, Outcome { pixels: pixels_there, damaged: false })
}

/// Decodes little-endian integers of two or four `bytes`.
pub(super) fn from_masks(data: &[u8], layout: &Layout, bytes: usize, masks: [u32; 4]) -> (Pixels, Outcome) {
    let parts = masks.map(Mask::new);
    let number = |row: &[u8], x: usize| match row[bytes * x..bytes * (x + 1)] {
        [low, high] => u32::from(u16::from_le_bytes([low, high])),
        [first, second, third, fourth] => u32::from_le_bytes([first, second, third, fourth]),
        _ => 0,
    };
    let [red, green, blue, alpha] = parts;
    let (pixels, pixels_there) = if masks[3] == 0 {
        fill::<3>(data, layout, 8 * bytes, |row, x| {
            let number = number(row, x);
            [red.sample(number), green.sample(number), blue.sample(number)]
        })
    } else {
        fill::<4>(data, layout, 8 * bytes, |row, x| {
            let number = number(row, x);
            [red.sample(number), green.sample(number), blue.sample(number), alpha.sample(number)]
        })
    };
    let overlap =
        masks.iter().fold((0_u32, false), |(seen, overlap), mask| (seen | mask, overlap || seen & mask != 0)).1;
    let damaged = overlap || parts.iter().any(|part| !part.is_whole());
    (pixels, Outcome { pixels: pixels_there, damaged })
}

/// Fills an image by calling `color` with each row and column; returns the number of pixels in the data.
fn fill<const CHANNELS: usize>(
    data: &[u8],
    layout: &Layout,
    bits: usize,
    mut color: impl FnMut(&[u8], usize) -> [u8; CHANNELS],
) -> (Pixels, usize) {
    let (width, height) = (layout.width as usize, layout.height as usize);
    let stride = layout.row_bytes().expect("rows without compression have a length");
    let mut filled = vec![MISSING; width * height * CHANNELS];
    if CHANNELS == 4 && data.len() < stride * height {
        filled.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 255);
    }
    let mut there = 0;
    for (index, row) in data.chunks(stride).take(height).enumerate() {
        let y = if layout.top_down { index } else { height - 1 - index };
        let whole = width.min(row.len() * 8 / bits);
        let target = &mut filled[y * width * CHANNELS..][..width * CHANNELS];
        for (x, pixel) in target.chunks_exact_mut(CHANNELS).take(whole).enumerate() {
            pixel.copy_from_slice(&color(row, x));
        }
        there += whole;
    }
    (Pixels { width: layout.width, height: layout.height, alpha: CHANNELS == 4, data: filled }, there)
}
