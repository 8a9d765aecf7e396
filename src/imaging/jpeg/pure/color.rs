//! Converts rows of components to rows of pixels, with the factors of JFIF (ITU-T T.871, 7).

use fearless_simd::{Bytes, Simd, SimdBase, u8x16, u32x4};

/// Fractional bits of the factors.
const FRACTION: u32 = 16;

const fn fixed(factor: f64) -> i32 {
    (factor * (1 << FRACTION) as f64 + 0.5) as i32
}

/// Red in the low byte, then green, then blue.
#[inline(always)]
fn to_rgb(y: u8, blue: u8, red: u8) -> u32 {
    let y = (i32::from(y) << FRACTION) + (1 << (FRACTION - 1));
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    let r = (y + fixed(1.402) * red) >> FRACTION;
    let g = (y - fixed(0.344_136_286) * blue - fixed(0.714_136_286) * red) >> FRACTION;
    let b = (y + fixed(1.772) * blue) >> FRACTION;
    (r.clamp(0, 255) | g.clamp(0, 255) << 8 | b.clamp(0, 255) << 16) as u32
}

/// Pixels computed before they are written.
const BLOCK_PIXELS: usize = 32;

/// Shuffle that packs four 4-byte pixels into three samples each; the last four bytes are unused.
const THREE_OF_FOUR: [u8; 16] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15];

#[inline(always)]
pub(super) fn from_ycbcr<S: Simd>(simd: S, [y, blue, red]: [&[u8]; 3], out: &mut [u8]) {
    let (whole, rest) = y.as_chunks::<BLOCK_PIXELS>();
    let colors = blue.as_chunks::<BLOCK_PIXELS>().0.iter().zip(red.as_chunks::<BLOCK_PIXELS>().0);
    let mut done = 0;
    for (y, (blue, red)) in whole.iter().zip(colors) {
        let room = out.get_mut(3 * done..).unwrap_or_default();
        write_rgb(simd, y, blue, red, room);
        done += BLOCK_PIXELS;
    }
    let padded = |row: &[u8]| {
        let mut padded = [0; BLOCK_PIXELS];
        padded[..rest.len()].copy_from_slice(&row[done..done + rest.len()]);
        padded
    };
    let mut last = [0; 3 * BLOCK_PIXELS];
    write_rgb(simd, &padded(y), &padded(blue), &padded(red), &mut last);
    out[3 * done..].copy_from_slice(&last[..3 * rest.len()]);
}

/// Writes as many pixels as exist and fit.
#[inline(always)]
fn write_rgb<S: Simd>(
    simd: S,
    y: &[u8; BLOCK_PIXELS],
    blue: &[u8; BLOCK_PIXELS],
    red: &[u8; BLOCK_PIXELS],
    out: &mut [u8],
) {
    let order = u8x16::from_slice(simd, &THREE_OF_FOUR);
    let mut packed = [0; BLOCK_PIXELS];
    for index in 0..BLOCK_PIXELS {
        packed[index] = to_rgb(y[index], blue[index], red[index]);
    }
    for (index, four) in packed.as_chunks::<4>().0.iter().enumerate() {
        let four = u32x4::from_slice(simd, four).to_bytes().swizzle_dyn_within_blocks(order);
        let four = four.as_array();
        // The next pixels overwrite the four surplus bytes.
        let room = out.get_mut(12 * index..).unwrap_or_default();
        match room.first_chunk_mut::<16>() {
            Some(room) => *room = *four,
            None => {
                let length = room.len().min(12);
                room[..length].copy_from_slice(&four[..length]);
            }
        }
    }
}

#[inline(always)]
pub(super) fn from_gray(gray: &[u8], out: &mut [u8]) {
    for (out, gray) in out.chunks_exact_mut(3).zip(gray) {
        out.copy_from_slice(&[*gray; 3]);
    }
}

#[inline(always)]
pub(super) fn from_rgb([r, g, b]: [&[u8]; 3], out: &mut [u8]) {
    for (((out, r), g), b) in out.chunks_exact_mut(3).zip(r).zip(g).zip(b) {
        out.copy_from_slice(&[*r, *g, *b]);
    }
}

#[inline(always)]
pub(super) fn from_cmyk([c, m, y, k]: [&[u8]; 4], out: &mut [u8]) {
    for ((((out, c), m), y), k) in out.chunks_exact_mut(4).zip(c).zip(m).zip(y).zip(k) {
        out.copy_from_slice(&[*c, *m, *y, *k]);
    }
}

/// Inks are white minus the colors.
#[inline(always)]
pub(super) fn from_ycck([y, blue, red, k]: [&[u8]; 4], out: &mut [u8]) {
    for ((((out, y), blue), red), k) in out.chunks_exact_mut(4).zip(y).zip(blue).zip(red).zip(k) {
        let [r, g, b, _] = to_rgb(*y, *blue, *red).to_le_bytes();
        out.copy_from_slice(&[255 - r, 255 - g, 255 - b, *k]);
    }
}
