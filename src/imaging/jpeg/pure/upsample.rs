//! Upsamples rows to the image's width. Halved components use a triangle filter: three quarters of the nearest sample
//! and one quarter of the next.

/// Ratio of a component's samples to the image's, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ratio {
    Same,
    Half,
    /// Any other ratio: `.0` samples per `.1` pixels, repeated.
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

/// Returns four times the blend of three quarters of `near` and one quarter of `far`.
#[inline(always)]
pub(super) fn blend(near: &[u8], far: &[u8], sums: &mut [u16]) {
    for ((sum, near), far) in sums.iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(*near) + u16::from(*far);
    }
}

/// Upsamples only vertically: `sums` are blended rows. Rounding alternates between the two output rows by `odd`, so
/// that the image does not get brighter.
#[inline(always)]
pub(super) fn settle(sums: &[u16], odd: bool, out: &mut [u8]) {
    let round = 1 + u16::from(odd);
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = ((sum + round) >> 2) as u8;
    }
}

/// Doubles the samples of `row`; drops the last if `out` is full.
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

/// Runs [`widen`] on a blended row.
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

/// Repeats samples: `ratio.0` samples per `ratio.1` pixels.
#[inline(always)]
pub(super) fn repeat(row: &[u8], ratio: (usize, usize), out: &mut [u8]) {
    for (x, out) in out.iter_mut().enumerate() {
        *out = row[x * ratio.0 / ratio.1];
    }
}
