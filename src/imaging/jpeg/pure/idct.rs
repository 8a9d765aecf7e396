//! Inverse DCT of a block to 8, 4, 2 or 1 samples per side (ITU-T T.81, A.3.3): the fixed-point algorithm of Loeffler,
//! Ligtenberg and Moschytz, and reduced versions for the low frequencies.

use fearless_simd::{Bytes, Simd, SimdBase, i16x8, i32x4, i32x8};

use super::tables::ZIGZAG;

/// A block's dequantized coefficients in column order, so that the first pass needs no transposition.
pub(super) type Block = [i16; 64];

/// Index in a [`Block`] of each coefficient in zigzag order.
pub(super) const PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut number = 0;
    while number < 64 {
        places[number] = ZIGZAG[number] % 8 * 8 + ZIGZAG[number] / 8;
        number += 1;
    }
    places
};

/// The coefficients, by zigzag index, outside the four lowest columns and the four lowest rows.
const UPPER_COLUMNS: u64 = outside(1);
const UPPER_ROWS: u64 = outside(8);

const fn outside(step: u8) -> u64 {
    let (mut set, mut number) = (0, 0);
    while number < 64 {
        if ZIGZAG[number] / step % 8 >= 4 {
            set |= 1 << number;
        }
        number += 1;
    }
    set
}

/// Fractional bits of the factors, and of the first pass's results.
const FRACTION: u32 = 13;
const PASS_FRACTION: u32 = 2;

/// Converts a factor (√2 times a cosine or a sum of cosines) to fixed point with [`FRACTION`] bits.
const fn fixed(factor: f64) -> i32 {
    (factor * (1 << FRACTION) as f64 + 0.5) as i32
}

/// Target of a block's samples: the plane's rows from the block's first row on, and its column.
pub(super) struct Target<'a> {
    pub rows: &'a mut [u8],
    pub stride: usize,
    pub left: usize,
}

impl Target<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, row: usize, samples: [u8; N]) {
        let from = row * self.stride + self.left;
        self.rows[from..from + N].copy_from_slice(&samples);
    }

    #[inline(always)]
    fn fill(&mut self, side: usize, sample: u8) {
        // Rows of constant length are written without a call.
        match side {
            8 => (0..8).for_each(|row| self.put(row, [sample; 8])),
            4 => (0..4).for_each(|row| self.put(row, [sample; 4])),
            2 => (0..2).for_each(|row| self.put(row, [sample; 2])),
            _ => self.put(0, [sample]),
        }
    }
}

/// Transforms a block to `side` samples per side; `present` are the coefficients that may be nonzero, by zigzag index.
#[inline(always)]
pub(super) fn transform<S: Simd>(simd: S, block: &Block, present: u64, side: usize, mut target: Target<'_>) {
    if present <= 1 || side == 1 {
        return target.fill(side, sample((i32::from(block[0]) + 4) >> 3));
    }
    match side {
        8 => match (present & UPPER_COLUMNS == 0, present & UPPER_ROWS == 0) {
            (true, true) => eight::<S, true, true>(simd, block, target),
            (true, false) => eight::<S, true, false>(simd, block, target),
            (false, true) => eight::<S, false, true>(simd, block, target),
            (false, false) => eight::<S, false, false>(simd, block, target),
        },
        4 => four(simd, block, target),
        _ => two(block, target),
    }
}

/// Fills a block without data with gray.
pub(super) fn leave_gray(side: usize, mut target: Target<'_>) {
    target.fill(side, 0x80);
}

#[inline(always)]
fn sample(level: i32) -> u8 {
    (level + 128).clamp(0, 255) as u8
}

/// One pass over eight vectors of eight lanes, scaled by √8. With `LOW` the upper four are zero.
// No closures over arrays: they are not inlined into code for a newer processor.
#[inline(always)]
fn eight_points<S: Simd, const LOW: bool>(simd: S, x: [i32x8<S>; 8]) -> [i32x8<S>; 8] {
    let zero = i32x8::splat(simd, 0);
    let [x0, x1, x2, x3, x4, x5, x6, x7] = if LOW { [x[0], x[1], x[2], x[3], zero, zero, zero, zero] } else { x };
    let half = (x2 + x6) * fixed(0.541_196_100);
    let (low, high) = (half - x6 * fixed(1.847_759_065), half + x2 * fixed(0.765_366_865));
    let (sum, difference) = ((x0 + x4) << FRACTION, (x0 - x4) << FRACTION);
    let [e0, e1, e2, e3] = [sum + high, difference + low, difference - low, sum - high];

    let all = (x7 + x3 + x5 + x1) * fixed(1.175_875_602);
    let (outer, inner) = ((x7 + x1) * -fixed(0.899_976_223), (x5 + x3) * -fixed(2.562_915_447));
    let left = all - (x7 + x3) * fixed(1.961_570_560);
    let right = all - (x5 + x1) * fixed(0.390_180_644);
    let o0 = x1 * fixed(1.501_321_110) + outer + right;
    let o1 = x3 * fixed(3.072_711_026) + inner + left;
    let o2 = x5 * fixed(2.053_119_869) + inner + right;
    let o3 = x7 * fixed(0.298_631_336) + outer + left;
    [e0 + o0, e1 + o1, e2 + o2, e3 + o3, e3 - o3, e2 - o2, e1 - o1, e0 - o0]
}

#[inline(always)]
fn widened<S: Simd>(simd: S, x: i16x8<S>) -> i32x8<S> {
    let (low, high) = simd.widen_i16x8(x);
    simd.combine_i32x4(low, high)
}

/// Rounds off `down` bits.
#[inline(always)]
fn narrowed<S: Simd>(simd: S, x: i32x8<S>, down: u32) -> i16x8<S> {
    let (low, high) = simd.split_i32x8((x + (1 << (down - 1))) >> down);
    simd.saturating_narrow_i32x4(low, high)
}

#[inline(always)]
fn eight<S: Simd, const LOW_COLUMNS: bool, const LOW_ROWS: bool>(simd: S, block: &Block, mut target: Target<'_>) {
    let mut wide = [i32x8::splat(simd, 0); 8];
    let mut narrow = [i16x8::splat(simd, 0); 8];
    for (wide, column) in wide.iter_mut().zip(block.chunks_exact(8)) {
        *wide = widened(simd, i16x8::from_slice(simd, column));
    }
    let first = eight_points::<S, LOW_COLUMNS>(simd, wide);
    for (narrow, column) in narrow.iter_mut().zip(first) {
        *narrow = narrowed(simd, column, FRACTION - PASS_FRACTION);
    }
    // Each round interleaves vectors n and n + 4; three rounds transpose.
    let turned = interleaved(simd, interleaved(simd, interleaved(simd, narrow)));
    for (wide, row) in wide.iter_mut().zip(turned) {
        *wide = widened(simd, row);
    }
    let second = eight_points::<S, LOW_ROWS>(simd, wide);
    for (narrow, row) in narrow.iter_mut().zip(second) {
        *narrow = narrowed(simd, row, FRACTION + PASS_FRACTION + 3);
    }
    for (pair, rows) in narrow.chunks_exact(2).enumerate() {
        // Saturation to -128..=127 clamps the samples, which are offset by 128.
        let both = simd.saturating_narrow_i16x8(rows[0], rows[1]).to_bytes() ^ 0x80;
        let [upper, lower] = *both.as_array().as_chunks::<8>().0 else { return };
        target.put(2 * pair, upper);
        target.put(2 * pair + 1, lower);
    }
}

#[inline(always)]
fn interleaved<S: Simd>(simd: S, x: [i16x8<S>; 8]) -> [i16x8<S>; 8] {
    [
        simd.zip_low_i16x8(x[0], x[4]),
        simd.zip_high_i16x8(x[0], x[4]),
        simd.zip_low_i16x8(x[1], x[5]),
        simd.zip_high_i16x8(x[1], x[5]),
        simd.zip_low_i16x8(x[2], x[6]),
        simd.zip_high_i16x8(x[2], x[6]),
        simd.zip_low_i16x8(x[3], x[7]),
        simd.zip_high_i16x8(x[3], x[7]),
    ]
}

/// One pass over four vectors of four lanes, scaled by √8.
#[inline(always)]
fn four_points<S: Simd>([x0, x1, x2, x3]: [i32x4<S>; 4]) -> [i32x4<S>; 4] {
    let (sum, difference) = ((x0 + x2) << FRACTION, (x0 - x2) << FRACTION);
    let (near, far) = (fixed(1.306_562_965), fixed(0.541_196_100));
    let (outer, inner) = (x1 * near + x3 * far, x1 * far - x3 * near);
    [sum + outer, difference + inner, difference - inner, sum - outer]
}

/// Transposes four rows of four.
#[inline(always)]
fn turned<S: Simd>(simd: S, x: [i32x4<S>; 4]) -> [i32x4<S>; 4] {
    let (a, b) = (simd.zip_low_i32x4(x[0], x[2]), simd.zip_high_i32x4(x[0], x[2]));
    let (c, d) = (simd.zip_low_i32x4(x[1], x[3]), simd.zip_high_i32x4(x[1], x[3]));
    [simd.zip_low_i32x4(a, c), simd.zip_high_i32x4(a, c), simd.zip_low_i32x4(b, d), simd.zip_high_i32x4(b, d)]
}

#[inline(always)]
fn four<S: Simd>(simd: S, block: &Block, mut target: Target<'_>) {
    let mut columns = [i32x4::splat(simd, 0); 4];
    for (column, levels) in columns.iter_mut().zip(block.chunks_exact(8)) {
        *column = simd.widen_i16x8(i16x8::from_slice(simd, levels)).0;
    }
    let mut first = four_points(columns);
    for column in &mut first {
        *column = (*column + (1 << (FRACTION - PASS_FRACTION - 1))) >> (FRACTION - PASS_FRACTION);
    }
    let mut rows = four_points(turned(simd, first));
    for row in &mut rows {
        *row = (*row + (1 << (FRACTION + PASS_FRACTION + 2))) >> (FRACTION + PASS_FRACTION + 3);
    }
    let upper = simd.saturating_narrow_i32x4(rows[0], rows[1]);
    let lower = simd.saturating_narrow_i32x4(rows[2], rows[3]);
    let all = simd.saturating_narrow_i16x8(upper, lower).to_bytes() ^ 0x80;
    for (row, samples) in all.as_array().as_chunks::<4>().0.iter().enumerate() {
        target.put(row, *samples);
    }
}

#[inline(always)]
fn two(block: &Block, mut target: Target<'_>) {
    let [mean, across, down, both] = [block[0], block[8], block[1], block[9]].map(i32::from);
    let level = |across: i32, down: i32, both: i32| sample((mean + across + down + both + 4) >> 3);
    target.put(0, [level(across, down, both), level(-across, down, -both)]);
    target.put(1, [level(across, -down, -both), level(-across, -down, both)]);
}
