//! Pixel buffer shared by all steps: eight bits per sample, RGB or RGBA, row by row.

/// An image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Whether pixels have a fourth sample, straight (not premultiplied) alpha.
    pub alpha: bool,
    /// Samples, row by row from the top, without padding.
    pub data: Vec<u8>,
}

/// Sample layout of a decoder's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Samples {
    Gray,
    GrayAlpha,
    Color,
    ColorAlpha,
}

impl Samples {
    const fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Color => 3,
            Self::ColorAlpha => 4,
        }
    }
}

impl Pixels {
    /// Returns the samples per pixel: 3 or 4.
    pub(super) const fn channels(&self) -> usize {
        if self.alpha { 4 } else { 3 }
    }

    /// Creates a buffer from eight-bit samples; grays become RGB.
    pub(super) fn from_8_bit(width: u32, height: u32, samples: Samples, data: Vec<u8>) -> Self {
        match samples {
            Samples::Color => Self { width, height, alpha: false, data },
            Samples::ColorAlpha => Self { width, height, alpha: true, data },
            Samples::Gray => {
                let data = data.iter().flat_map(|gray| [*gray; 3]).collect();
                Self { width, height, alpha: false, data }
            }
            Samples::GrayAlpha => {
                let data = data.chunks_exact(2).flat_map(|two| [two[0], two[0], two[0], two[1]]).collect();
                Self { width, height, alpha: true, data }
            }
        }
    }

    /// Creates a buffer from 16-bit samples, rounded to eight bits.
    pub(super) fn from_16_bit(width: u32, height: u32, samples: Samples, data: impl Iterator<Item = u16>) -> Self {
        let mut narrow = Vec::with_capacity(width as usize * height as usize * samples.count());
        narrow.extend(data.map(|sample| ((u32::from(sample) * 255 + 32_895) >> 16) as u8));
        Self::from_8_bit(width, height, samples, narrow)
    }

    /// Removes alpha if every pixel is opaque: later steps cost less without it.
    pub(super) fn drop_opaque_alpha(&mut self) {
        if !self.alpha || self.data.chunks_exact(4).any(|pixel| pixel[3] != 255) {
            return;
        }
        self.drop_fourth();
    }

    /// Removes the fourth sample of each pixel in place.
    pub(super) fn drop_fourth(&mut self) {
        let count = self.data.len() / 4;
        for index in 0..count {
            self.data.copy_within(4 * index..4 * index + 3, 3 * index);
        }
        self.data.truncate(3 * count);
        self.alpha = false;
    }

    /// Returns the pixels composed on white, without alpha.
    pub(super) fn on_white(&self) -> Self {
        let mut data = Vec::with_capacity(self.data.len() / 4 * 3);
        for pixel in self.data.chunks_exact(4) {
            let alpha = u32::from(pixel[3]);
            data.extend(
                pixel[..3].iter().map(|sample| ((u32::from(*sample) * alpha + 255 * (255 - alpha) + 127) / 255) as u8),
            );
        }
        Self { width: self.width, height: self.height, alpha: false, data }
    }
}
