//! Rows of samples brought to the width of the picture. Halves are enlarged by a triangle filter: each sample is made of
//! three quarters of the nearest one and a quarter of the next.

/// How the samples of a component stand to those of the picture, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ratio {
    Same,
    Half,
    /// Any other: `.0` samples for `.1` pixels, each repeated.
    Other(usize, usize),
}

impl Ratio {
    pub(super) fn of(samples: usize, pixels: usize) -> Self {
        if samples == pixels {
            Self::Same
        } else if samples * 2 == pixels {
            Self::Half
        } else {
            Self::Other(samples, pixels)
        }
    }
}

/// Three quarters of each sample of `near` and a quarter of `far`, times four.
#[inline(always)]
pub(super) fn blend(near: &[u8], far: &[u8], sums: &mut [u16]) {
    for ((sum, near), far) in sums.iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(*near) + u16::from(*far);
    }
}

/// Enlarges vertically alone: `sums` are blended rows. Rounding alternates between the two rows made of one, as does
/// `odd`, lest the picture get brighter.
#[inline(always)]
pub(super) fn settle(sums: &[u16], odd: bool, out: &mut [u8]) {
    let round = 1 + u16::from(odd);
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = ((sum + round) >> 2) as u8;
    }
}

/// Twice as many samples as `row` has; the last is left out if `out` has no room for it.
#[inline(always)]
pub(super) fn widen(row: &[u8], out: &mut [u8]) {
    let quarter = |near: u8, far: u8, round: u16| ((3 * u16::from(near) + u16::from(far) + round) >> 2) as u8;
    let (Some(first), Some(last)) = (row.first(), row.last()) else { return };
    if let Some(out) = out.first_mut() {
        *out = *first;
    }
    let pairs = out.get_mut(1..).unwrap_or_default().chunks_exact_mut(2);
    for (pair, two) in pairs.zip(row.windows(2)) {
        pair[0] = quarter(two[0], two[1], 2);
        pair[1] = quarter(two[1], two[0], 1);
    }
    if let Some(out) = out.get_mut(2 * row.len() - 1) {
        *out = *last;
    }
}

/// As [`widen`], from a blended row.
#[inline(always)]
pub(super) fn widen_blended(sums: &[u16], out: &mut [u8]) {
    let quarter = |near: u16, far: u16, round: u16| ((3 * near + far + round) >> 4) as u8;
    let (Some(first), Some(last)) = (sums.first(), sums.last()) else { return };
    if let Some(out) = out.first_mut() {
        *out = quarter(*first, *first, 8);
    }
    let pairs = out.get_mut(1..).unwrap_or_default().chunks_exact_mut(2);
    for (pair, two) in pairs.zip(sums.windows(2)) {
        pair[0] = quarter(two[0], two[1], 7);
        pair[1] = quarter(two[1], two[0], 8);
    }
    if let Some(out) = out.get_mut(2 * sums.len() - 1) {
        *out = quarter(*last, *last, 7);
    }
}

/// Repeats samples: `ratio.0` of them stand for `ratio.1` pixels.
#[inline(always)]
pub(super) fn repeat(row: &[u8], ratio: (usize, usize), out: &mut [u8]) {
    for (x, out) in out.iter_mut().enumerate() {
        *out = row[x * ratio.0 / ratio.1];
    }
}
