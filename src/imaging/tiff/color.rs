//! Converts eight-bit samples of a pixel to RGB or RGBA; inks stay inks.

use crate::imaging::header::tiff::{Alpha, LUMA, Layout, Meaning, PALETTE, REFERENCE};

/// Converts samples to colors.
pub(super) struct Colors {
    meaning: Meaning,
    alpha: Alpha,
    palette: Vec<[u8; 3]>,
    chroma: Chroma,
}

impl Colors {
    pub(super) fn new(layout: &Layout<'_>) -> Self {
        let palette = if layout.meaning == Meaning::Palette { palette(layout) } else { Vec::new() };
        Self { meaning: layout.meaning, alpha: layout.alpha, palette, chroma: Chroma::new(layout) }
    }

    /// Writes `target`, of three or four samples, from `samples`; returns `false` if the palette lacks the color.
    pub(super) fn set(&self, samples: &[u8], target: &mut [u8]) -> bool {
        match self.meaning {
            Meaning::Gray { white_is_zero } => {
                target[..3].fill(if white_is_zero { 255 - samples[0] } else { samples[0] });
                self.set_alpha(samples.get(1), target);
            }
            Meaning::Color => {
                target[..3].copy_from_slice(&samples[..3]);
                self.set_alpha(samples.get(3), target);
            }
            Meaning::Palette => match self.palette.get(usize::from(samples[0])) {
                Some(color) => target[..3].copy_from_slice(color),
                None => {
                    target[..3].fill(0);
                    return false;
                }
            },
            Meaning::Inks => target[..4].copy_from_slice(&samples[..4]),
            Meaning::Chroma { .. } => {
                target[..3].copy_from_slice(&self.chroma.color([samples[0], samples[1], samples[2]]))
            }
        }
        true
    }

    fn set_alpha(&self, alpha: Option<&u8>, target: &mut [u8]) {
        let (Some(alpha), [color @ .., last]) = (alpha, target) else { return };
        if self.alpha == Alpha::None {
            return;
        }
        *last = *alpha;
        if self.alpha == Alpha::Multiplied && *alpha > 0 {
            let whole = u32::from(*alpha);
            color
                .iter_mut()
                .for_each(|sample| *sample = ((u32::from(*sample) * 255 + whole / 2) / whole).min(255) as u8);
        }
    }
}

/// Reads the palette: all reds, then all greens, then all blues, 16 bits each; some programs write only 8.
fn palette(layout: &Layout<'_>) -> Vec<[u8; 3]> {
    let colors = (layout.directory.count(PALETTE) / 3).min(1 << layout.bits);
    let sample = |part: usize, index: usize| layout.directory.number(PALETTE, part * colors + index).unwrap_or(0);
    let all: Vec<[u32; 3]> = (0..colors).map(|index| [0, 1, 2].map(|part| sample(part, index))).collect();
    let shift = if all.iter().flatten().all(|sample| *sample < 256) { 0 } else { 8 };
    all.into_iter().map(|color| color.map(|sample| (sample >> shift) as u8)).collect()
}

/// Converts luma and chroma to RGB (TIFF 6.0, section 21).
struct Chroma {
    red: f32,
    green: f32,
    blue: f32,
    /// Zero value of each sample, and the factor that scales it.
    scales: [(f32, f32); 3],
}

impl Chroma {
    fn new(layout: &Layout<'_>) -> Self {
        let mut parts = [0, 1, 2].map(|index| layout.directory.real(LUMA, index).unwrap_or(f32::NAN));
        // Use BT.601 if the coefficients are invalid.
        let are_parts = parts.iter().all(|part| *part > 0.001 && *part < 1.0);
        if !are_parts || (parts.iter().sum::<f32>() - 1.0).abs() > 0.01 {
            parts = [0.299, 0.587, 0.114];
        }
        let usual = [0.0, 255.0, 128.0, 255.0, 128.0, 255.0];
        let reference = |index: usize| layout.directory.real(REFERENCE, index).filter(|value| value.is_finite());
        let scales = [0, 1, 2].map(|part| {
            let range = if part == 0 { 255.0 } else { 127.0 };
            let pair = reference(2 * part).zip(reference(2 * part + 1)).filter(|(black, white)| white - black >= 1.0);
            let (black, white) = pair.unwrap_or((usual[2 * part], usual[2 * part + 1]));
            (black, range / (white - black))
        });
        let [red, green, blue] = parts;
        Self { red, green, blue, scales }
    }

    fn color(&self, samples: [u8; 3]) -> [u8; 3] {
        let [luma, to_blue, to_red] =
            [0, 1, 2].map(|part| (f32::from(samples[part]) - self.scales[part].0) * self.scales[part].1);
        let red = luma + to_red * (2.0 - 2.0 * self.red);
        let blue = luma + to_blue * (2.0 - 2.0 * self.blue);
        let green = (luma - self.red * red - self.blue * blue) / self.green;
        [red, green, blue].map(|sample| (sample + 0.5).clamp(0.0, 255.0) as u8)
    }
}
