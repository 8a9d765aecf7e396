//! From the coefficients of a block to its samples, eight, four, two or one a side (ITU-T T.81, A.3.3): the algorithm of
//! Loeffler, Ligtenberg and Moschytz with fixed-point numbers, and its smaller kin on the low frequencies alone.

use fearless_simd::{Bytes, Simd, SimdBase, SimdFrom, i16x8, i32x4, i32x8};

use super::tables::ZIGZAG;

/// A block's coefficients, dequantised, column by column: so the first pass needs no transposition.
pub(super) type Block = [i32; 64];

/// Where the coefficients of the file stand in a [`Block`].
pub(super) const PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut number = 0;
    while number < 64 {
        places[number] = ZIGZAG[number] % 8 * 8 + ZIGZAG[number] / 8;
        number += 1;
    }
    places
};

/// The coefficients, by their number in the file, outside the four lowest columns and outside the four lowest rows.
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

/// Fractional bits of the factors, and those that the first pass leaves in its results.
const FRACTION: u32 = 13;
const KEPT: u32 = 2;

/// The square root of two times a cosine or a sum of such, times 2 to the [`FRACTION`].
const fn fixed(factor: f64) -> i32 {
    (factor * (1 << FRACTION) as f64 + 0.5) as i32
}

/// Where a block's samples go: the plane's rows from the one that holds the block, and the block's place in them.
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

    fn fill(&mut self, side: usize, sample: u8) {
        for row in 0..side {
            let from = row * self.stride + self.left;
            self.rows[from..from + side].fill(sample);
        }
    }
}

/// Turns a block into `side` samples a side; `present` are the coefficients that may not be zero, by their number in
/// the file.
#[inline(always)]
pub(super) fn transform<S: Simd>(simd: S, block: &Block, present: u64, side: usize, mut target: Target<'_>) {
    if present <= 1 || side == 1 {
        return target.fill(side, sample(block[0].wrapping_add(4) >> 3));
    }
    match side {
        8 if present & (UPPER_COLUMNS | UPPER_ROWS) == 0 => eight::<S, true>(simd, block, target),
        8 => eight::<S, false>(simd, block, target),
        4 => four(simd, block, target),
        _ => two(block, target),
    }
}

/// The grey that stands for a block without data.
pub(super) fn leave_grey(side: usize, mut target: Target<'_>) {
    target.fill(side, 0x80);
}

#[inline(always)]
fn sample(level: i32) -> u8 {
    level.saturating_add(128).clamp(0, 255) as u8
}

/// One pass over eight vectors of eight lanes, scaled by the square root of eight. With `LOW` the upper four are zero.
#[inline(always)]
fn eight_points<S: Simd, const LOW: bool>(simd: S, x: [i32x8<S>; 8]) -> [i32x8<S>; 8] {
    let zero = i32x8::splat(simd, 0);
    let [x0, x1, x2, x3, x4, x5, x6, x7] =
        if LOW { [x[0], x[1], x[2], x[3], zero, zero, zero, zero] } else { x };
    let half = (x2 + x6) * fixed(0.541_196_100);
    let (low, high) = (half - x6 * fixed(1.847_759_065), half + x2 * fixed(0.765_366_865));
    let (sum, difference) = ((x0 + x4) << FRACTION, (x0 - x4) << FRACTION);
    let even = [sum + high, difference + low, difference - low, sum - high];

    let all = (x7 + x3 + x5 + x1) * fixed(1.175_875_602);
    let (outer, inner) = ((x7 + x1) * -fixed(0.899_976_223), (x5 + x3) * -fixed(2.562_915_447));
    let left = all - (x7 + x3) * fixed(1.961_570_560);
    let right = all - (x5 + x1) * fixed(0.390_180_644);
    let odd = [
        x1 * fixed(1.501_321_110) + outer + right,
        x3 * fixed(3.072_711_026) + inner + left,
        x5 * fixed(2.053_119_869) + inner + right,
        x7 * fixed(0.298_631_336) + outer + left,
    ];
    std::array::from_fn(|n| if n < 4 { even[n] + odd[n] } else { even[7 - n] - odd[7 - n] })
}

#[inline(always)]
fn eight<S: Simd, const LOW: bool>(simd: S, block: &Block, mut target: Target<'_>) {
    let columns = std::array::from_fn(|column| i32x8::from_slice(simd, &block[8 * column..8 * column + 8]));
    let first = eight_points::<S, LOW>(simd, columns);
    let round = 1 << (FRACTION - KEPT - 1);
    let narrow = |wide: i32x8<S>| {
        let (low, high) = simd.split_i32x8((wide + round) >> (FRACTION - KEPT));
        simd.saturating_narrow_i32x4(low, high)
    };
    let turned = transposed(simd, first.map(narrow));
    let wide = turned.map(|row| {
        let (low, high) = simd.widen_i16x8(row);
        simd.combine_i32x4(low, high)
    });
    let second = eight_points::<S, LOW>(simd, wide);
    let down = FRACTION + KEPT + 3;
    let rows = second.map(|row| {
        let (low, high) = simd.split_i32x8((row + (1 << (down - 1))) >> down);
        simd.saturating_narrow_i32x4(low, high)
    });
    for pair in 0..4 {
        // Saturation to -128..=127 is the clamp of the samples, which are 128 more.
        let both = simd.saturating_narrow_i16x8(rows[2 * pair], rows[2 * pair + 1]).to_bytes();
        let both: [u8; 16] = (both ^ 0x80).into();
        let (upper, lower) = both.split_at(8);
        target.put::<8>(2 * pair, upper.try_into().expect("half of 16 is 8"));
        target.put::<8>(2 * pair + 1, lower.try_into().expect("half of 16 is 8"));
    }
}

#[inline(always)]
fn transposed<S: Simd>(simd: S, x: [i16x8<S>; 8]) -> [i16x8<S>; 8] {
    // Each round interleaves vector n with vector n + 4; three rounds turn rows into columns.
    let round = |x: [i16x8<S>; 8]| -> [i16x8<S>; 8] {
        std::array::from_fn(|n| {
            let (upper, lower) = (x[n / 2], x[n / 2 + 4]);
            if n % 2 == 0 { simd.zip_low_i16x8(upper, lower) } else { simd.zip_high_i16x8(upper, lower) }
        })
    };
    round(round(round(x)))
}

/// One pass over four vectors of four lanes, scaled by the square root of eight.
#[inline(always)]
fn four_points<S: Simd>([x0, x1, x2, x3]: [i32x4<S>; 4]) -> [i32x4<S>; 4] {
    let (sum, difference) = ((x0 + x2) << FRACTION, (x0 - x2) << FRACTION);
    let (near, far) = (fixed(1.306_562_965), fixed(0.541_196_100));
    let (outer, inner) = (x1 * near + x3 * far, x1 * far - x3 * near);
    [sum + outer, difference + inner, difference - inner, sum - outer]
}

#[inline(always)]
fn four<S: Simd>(simd: S, block: &Block, mut target: Target<'_>) {
    let columns = std::array::from_fn(|column| i32x4::from_slice(simd, &block[8 * column..8 * column + 4]));
    let round = 1 << (FRACTION - KEPT - 1);
    let first: [[i32; 4]; 4] =
        four_points(columns).map(|column| ((column + round) >> (FRACTION - KEPT)).into());
    let turned = std::array::from_fn(|row| i32x4::simd_from(simd, [first[0][row], first[1][row], first[2][row], first[3][row]]));
    let down = FRACTION + KEPT + 3;
    for (row, levels) in four_points(turned).into_iter().enumerate() {
        let levels: [i32; 4] = ((levels + (1 << (down - 1))) >> down).into();
        target.put(row, levels.map(sample));
    }
}

#[inline(always)]
fn two(block: &Block, mut target: Target<'_>) {
    let (mean, across, down, both) = (block[0], block[8], block[1], block[9]);
    let level = |across: i32, down: i32, both: i32| {
        sample(mean.wrapping_add(across).wrapping_add(down).wrapping_add(both).wrapping_add(4) >> 3)
    };
    let (across_back, down_back, both_back) = (across.wrapping_neg(), down.wrapping_neg(), both.wrapping_neg());
    target.put(0, [level(across, down, both), level(across_back, down, both_back)]);
    target.put(1, [level(across, down_back, both_back), level(across_back, down_back, both)]);
}
