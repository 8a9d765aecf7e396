//! Converts luma and chroma to RGB (ITU-T H.273, section 8.3).

use super::decoder::Coded;
use crate::imaging::header::avif::Coding;

/// Converts the samples of one coded image to colors.
pub(super) struct Converter {
    /// The samples are already green, blue and red.
    identity: bool,
    red: f32,
    blue: f32,
    /// Value of black, and the factors that scale luma and chroma to eight bits.
    black: f32,
    luma: f32,
    middle: f32,
    chroma: f32,
}

impl Converter {
    /// Creates a converter by the container's color information, or else the coded image's.
    pub(super) fn new(coded: &Coded, container: Option<Coding>) -> Self {
        let coding = container.unwrap_or(coded.coding);
        // Weights of red and blue in luma; BT.601 if unspecified, as in browsers.
        let (red, blue) = match coding.matrix {
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ => (0.299, 0.114),
        };
        let scale = (1_u32 << (coded.bits - 8)) as f32;
        let most = ((1_u32 << coded.bits) - 1) as f32;
        let (black, luma, chroma) = if coding.full_range {
            (0.0, 255.0 / most, 255.0 / most)
        } else {
            (16.0 * scale, 255.0 / (219.0 * scale), 255.0 / (224.0 * scale))
        };
        Self { identity: coding.matrix == 0, red, blue, black, luma, middle: 128.0 * scale, chroma }
    }

    /// Writes the colors of row `y`; pixels are `channels` samples apart.
    pub(super) fn set_colors(&self, coded: &Coded, y: usize, target: &mut [u8], channels: usize) {
        let wide = coded.bits > 8;
        let luma = coded.row(0, y);
        let Some((across, down)) = coded.chroma else {
            for (x, pixel) in target.chunks_exact_mut(channels).enumerate() {
                pixel[..3].fill(byte((sample(luma, x, wide) - self.black) * self.luma));
            }
            return;
        };
        let (blues, reds) = (coded.row(1, y >> down), coded.row(2, y >> down));
        let (to_red, to_blue) = (2.0 - 2.0 * self.red, 2.0 - 2.0 * self.blue);
        let green = 1.0 - self.red - self.blue;
        for (x, pixel) in target.chunks_exact_mut(channels).enumerate() {
            let (first, second, third) =
                (sample(luma, x, wide), sample(blues, x >> across, wide), sample(reds, x >> across, wide));
            let color = if self.identity {
                [third, first, second].map(|sample| (sample - self.black) * self.luma)
            } else {
                let light = (first - self.black) * self.luma;
                let red = light + (third - self.middle) * self.chroma * to_red;
                let blue = light + (second - self.middle) * self.chroma * to_blue;
                [red, (light - self.red * red - self.blue * blue) / green, blue]
            };
            pixel[..3].copy_from_slice(&color.map(byte));
        }
    }
}

/// Writes the alpha of row `y`; `multiplied` colors are divided by it.
pub(super) fn set_alpha(coded: &Coded, y: usize, target: &mut [u8], multiplied: bool) {
    let row = coded.row(0, y);
    let scale = 255.0 / ((1_u32 << coded.bits) - 1) as f32;
    for (x, pixel) in target.chunks_exact_mut(4).enumerate() {
        let alpha = byte(sample(row, x, coded.bits > 8) * scale);
        pixel[3] = alpha;
        if multiplied && alpha > 0 {
            let whole = u32::from(alpha);
            let divided = |sample: u8| ((u32::from(sample) * 255 + whole / 2) / whole).min(255) as u8;
            pixel[..3].iter_mut().for_each(|sample| *sample = divided(*sample));
        }
    }
}

fn sample(row: &[u8], x: usize, wide: bool) -> f32 {
    if wide { f32::from(u16::from_ne_bytes([row[2 * x], row[2 * x + 1]])) } else { f32::from(row[x]) }
}

fn byte(value: f32) -> u8 {
    (value + 0.5).clamp(0.0, 255.0) as u8
}
