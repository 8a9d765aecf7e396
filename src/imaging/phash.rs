//! Perceptual hash, in integers only, so that it is equal on every machine.

use super::pixels::Pixels;

/// Side in pixels of the image that is transformed.
const SIDE: usize = 32;

/// Frequencies per side in the hash, from the second lowest.
const HASH_SIDE: usize = 8;

/// cos(k π / 64) for k from 0 to 32, times 2¹⁴.
const QUARTER: [i64; SIDE + 1] = [
    16_384, 16_364, 16_305, 16_207, 16_069, 15_893, 15_679, 15_426, 15_137, 14_811, 14_449, 14_053, 13_623, 13_160,
    12_665, 12_140, 11_585, 11_003, 10_394, 9_760, 9_102, 8_423, 7_723, 7_005, 6_270, 5_520, 4_756, 3_981, 3_196,
    2_404, 1_606, 804, 0,
];

/// Returns pHash's DCT hash (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010,
/// section 3.2.1).
///
/// The image is converted to 32 × 32 grays and transformed by a DCT-II. Each of the 8 × 8 lowest frequencies that are
/// not constant in either direction gives one bit: whether it is above their median. The first frequency is the highest
/// bit, row by row.
///
/// Transparency is composed on white. `pixels` is any small image of any aspect ratio.
pub(super) fn perceptual_hash(pixels: &Pixels) -> u64 {
    let gray = Gray::of(pixels).reduced();
    // First along the rows, then the columns; only for the frequencies in the hash.
    let mut rows = [[0_i64; HASH_SIDE]; SIDE];
    for (row, grays) in rows.iter_mut().zip(gray.chunks_exact(SIDE)) {
        for (index, sum) in row.iter_mut().enumerate() {
            *sum = grays.iter().enumerate().map(|(x, gray)| gray * wave(index + 1, x)).sum();
        }
    }
    let mut frequencies = [0_i64; HASH_SIDE * HASH_SIDE];
    for (at, frequency) in frequencies.iter_mut().enumerate() {
        let (down, across) = (at / HASH_SIDE, at % HASH_SIDE);
        *frequency = rows.iter().enumerate().map(|(y, row)| (row[across] >> 14) * wave(down + 1, y)).sum();
    }
    let mut sorted = frequencies;
    sorted.sort_unstable();
    // Twice the median: the sum of the two middle values.
    let median = sorted[HASH_SIDE * HASH_SIDE / 2 - 1] + sorted[HASH_SIDE * HASH_SIDE / 2];
    frequencies.iter().fold(0, |hash, frequency| hash << 1 | u64::from(2 * frequency > median))
}

/// cos((2 x + 1) `frequency` π / 64), times 2¹⁴.
fn wave(frequency: usize, x: usize) -> i64 {
    match (2 * x + 1) * frequency % 128 {
        angle @ 0..=32 => QUARTER[angle],
        angle @ 33..=64 => -QUARTER[64 - angle],
        angle @ 65..=96 => -QUARTER[angle - 64],
        angle => QUARTER[128 - angle],
    }
}

/// Grays of 0 to 65,280, row by row.
struct Gray {
    width: usize,
    height: usize,
    data: Vec<i64>,
}

impl Gray {
    /// Converts to gray with BT.601 weights, in 256ths.
    fn of(pixels: &Pixels) -> Self {
        let luma = |pixel: &[u8]| {
            let gray = 77 * i64::from(pixel[0]) + 150 * i64::from(pixel[1]) + 29 * i64::from(pixel[2]);
            let alpha = pixel.get(3).map_or(255, |alpha| i64::from(*alpha));
            (gray * alpha + 255 * 256 * (255 - alpha)) / 255
        };
        let data = pixels.data.chunks_exact(pixels.channels()).map(luma).collect();
        Self { width: pixels.width as usize, height: pixels.height as usize, data }
    }

    /// Returns the means of 32 × 32 equal areas; border pixels count by their share.
    fn reduced(&self) -> Vec<i64> {
        let narrow: Vec<i64> = self.data.chunks_exact(self.width).flat_map(areas).collect();
        let columns = (0..SIDE).map(|x| {
            let column: Vec<i64> = narrow.iter().skip(x).step_by(SIDE).copied().collect();
            areas(&column)
        });
        let columns: Vec<_> = columns.collect();
        debug_assert_eq!(narrow.len(), SIDE * self.height);
        (0..SIDE * SIDE).map(|at| columns[at % SIDE][at / SIDE]).collect()
    }
}

/// Returns the means of 32 equal parts of a line.
fn areas(line: &[i64]) -> [i64; SIDE] {
    let length = line.len();
    std::array::from_fn(|part| {
        // In 32nds of a sample, so that all bounds are integers.
        let (from, to) = (part * length, (part + 1) * length);
        let (first, last) = (from / SIDE, (to - 1) / SIDE);
        let covered = |at: usize| (to.min((at + 1) * SIDE) - from.max(at * SIDE)) as i64;
        let sum: i64 = (first..=last).map(|at| line[at] * covered(at)).sum();
        sum / length as i64
    })
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::imaging::tests::fixtures::{Writing, file, jpeg_with};
    use crate::imaging::{Limits, process};

    /// Twelve colored discs at places that the seed chooses; the same image at every size.
    fn discs(seed: u32, width: u32, height: u32) -> RgbImage {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 16) / 65_536.0
        };
        let mut image = RgbImage::from_pixel(width, height, image::Rgb([128, 120, 110]));
        for _ in 0..12 {
            let (across, down, radius) = (next(), next(), 0.08 + 0.2 * next());
            let color = [next(), next(), next()].map(|share| (share * 235.0) as u8);
            for (x, y, pixel) in image.enumerate_pixels_mut() {
                let (x, y) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
                if (x - across).hypot(y - down) < radius {
                    *pixel = image::Rgb(color);
                }
            }
        }
        image
    }

    fn hash(source: &[u8]) -> u64 {
        process(source, &[], &Limits::default()).expect("the image is whole").perceptual_hash
    }

    fn of(image: RgbImage) -> u64 {
        hash(&file(image, image::ImageFormat::Png))
    }

    fn distance(left: u64, right: u64) -> u32 {
        (left ^ right).count_ones()
    }

    #[test]
    fn a_resaved_image_has_nearly_the_same_hash() {
        for seed in 1..=6 {
            let original = of(discs(seed, 480, 360));
            let again = jpeg_with(&discs(seed, 480, 360), Writing { quality: 40, ..Writing::default() });
            let mut brighter = discs(seed, 480, 360);
            brighter.iter_mut().for_each(|sample| *sample = sample.saturating_add(12));
            let others = [hash(&again), of(discs(seed, 240, 180)), of(discs(seed, 1000, 750)), of(brighter)];
            let apart = others.map(|other| distance(original, other));
            assert!(apart.iter().all(|bits| *bits <= 6), "seed {seed}: {apart:?}");
        }
    }

    #[test]
    fn different_images_have_distant_hashes() {
        let hashes: Vec<_> = (1..=12).map(|seed| of(discs(seed, 320, 240))).collect();
        for (at, hash) in hashes.iter().enumerate() {
            for other in &hashes[..at] {
                assert!(distance(*hash, *other) >= 16, "{hash:016x} and {other:016x}");
            }
        }
    }

    #[test]
    fn a_wave_is_the_cosine_of_its_angle() {
        for frequency in 0..=HASH_SIDE {
            for x in 0..SIDE {
                let angle = (2 * x + 1) as f64 * frequency as f64 * std::f64::consts::PI / 64.0;
                assert!((wave(frequency, x) as f64 - angle.cos() * 16_384.0).abs() <= 0.51, "{frequency}, {x}");
            }
        }
    }

    #[test]
    fn areas_are_means_whatever_the_length() {
        for length in [1, 2, 31, 32, 33, 100] {
            assert_eq!(areas(&vec![777; length]), [777; SIDE]);
        }
        let rising: Vec<i64> = (0..64).collect();
        assert_eq!(areas(&rising)[..3], [0, 2, 4]);
    }

    #[test]
    fn transparent_pixels_count_as_white() {
        let on_nothing = |hidden: u8| Pixels {
            width: 40,
            height: 30,
            alpha: true,
            data: (0..1200)
                .flat_map(|at| if (at * at / 7) % 11 < 4 { [9, 9, 9, 255] } else { [hidden, hidden, hidden, 0] })
                .collect(),
        };
        assert_eq!(perceptual_hash(&on_nothing(0)), perceptual_hash(&on_nothing(255)));
    }
}
