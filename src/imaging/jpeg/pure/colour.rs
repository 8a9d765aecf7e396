//! Rows of components turned into rows of pixels. The factors are those of JFIF (ITU-T T.871, 7).

/// Fractional bits of the factors.
const FRACTION: u32 = 16;

const fn fixed(factor: f64) -> i32 {
    (factor * (1 << FRACTION) as f64 + 0.5) as i32
}

#[inline(always)]
fn to_rgb(y: u8, blue: u8, red: u8) -> [u8; 3] {
    let y = (i32::from(y) << FRACTION) + (1 << (FRACTION - 1));
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    let level = |level: i32| (level >> FRACTION).clamp(0, 255) as u8;
    [
        level(y + fixed(1.402) * red),
        level(y - fixed(0.344_136_286) * blue - fixed(0.714_136_286) * red),
        level(y + fixed(1.772) * blue),
    ]
}

#[inline(always)]
pub(super) fn from_ycbcr([y, blue, red]: [&[u8]; 3], out: &mut [u8]) {
    for (((out, y), blue), red) in out.chunks_exact_mut(3).zip(y).zip(blue).zip(red) {
        out.copy_from_slice(&to_rgb(*y, *blue, *red));
    }
}

#[inline(always)]
pub(super) fn from_grey(grey: &[u8], out: &mut [u8]) {
    for (out, grey) in out.chunks_exact_mut(3).zip(grey) {
        out.copy_from_slice(&[*grey; 3]);
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

/// The inks are what the colours leave of white.
#[inline(always)]
pub(super) fn from_ycck([y, blue, red, k]: [&[u8]; 4], out: &mut [u8]) {
    for ((((out, y), blue), red), k) in out.chunks_exact_mut(4).zip(y).zip(blue).zip(red).zip(k) {
        let [r, g, b] = to_rgb(*y, *blue, *red);
        out.copy_from_slice(&[255 - r, 255 - g, 255 - b, *k]);
    }
}
