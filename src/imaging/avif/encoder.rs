//! Encodes AVIF with ravif (rav1e): still images, 8 bits, full chroma resolution.

use ravif::{AlphaColorMode, BitDepth, EncodedImage, Encoder, Img, RGB8, RGBA8};

use crate::imaging::error::Error;
use crate::imaging::pixels::Pixels;
use crate::imaging::preset::Effort;
use crate::imaging::tuning::Tuning;

/// Encodes AVIF with alpha and without metadata.
///
/// The output is the same on every machine: the number of tiles would follow the number of threads, so there is always
/// one tile.
///
/// # Errors
/// [`Error::Internal`] if the encoder fails.
pub(in crate::imaging) fn encode(pixels: &Pixels, tuning: Tuning) -> Result<Vec<u8>, Error> {
    let quality = quality(tuning.quality);
    let encoder = Encoder::new()
        .with_quality(quality)
        .with_alpha_quality(quality)
        .with_speed(speed(pixels, tuning.effort))
        .with_bit_depth(BitDepth::Eight)
        .with_alpha_color_mode(AlphaColorMode::UnassociatedClean)
        .with_num_threads(Some(1));
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let encoded = if pixels.alpha {
        let samples: Vec<RGBA8> = pixels.data.chunks_exact(4).map(|p| RGBA8::new(p[0], p[1], p[2], p[3])).collect();
        encoder.encode_rgba(Img::new(&samples, width, height))
    } else {
        let samples: Vec<RGB8> = pixels.data.chunks_exact(3).map(|p| RGB8::new(p[0], p[1], p[2])).collect();
        encoder.encode_rgb(Img::new(&samples, width, height))
    };
    let fault = |error: ravif::Error| Error::Internal(error.to_string().into());
    encoded.map(|EncodedImage { avif_file, .. }| avif_file).map_err(fault)
}

/// Maps our quality to ravif's: the same number, because at 80 the results look alike. Measured by SSIMULACRA2 on five
/// photographs of 768 pixels: lossy WebP at 80 has 76.7; AVIF has 76.2 at ravif's 78 and about 77 at its 80, in 20 %
/// fewer bytes.
fn quality(ours: u8) -> f32 {
    f32::from(ours.clamp(1, 100))
}

/// Larger images are encoded faster, so that none takes minutes.
const UNHURRIED_PIXELS: u64 = 2 << 20;

/// Returns rav1e's speed. A megapixel takes about 2 s of one core at 9, 4 s at 8 and 5 s at 6. At equal quality, 9 has
/// 13 % more bytes than 8, 6 has 1 % fewer, and 10 has 28 % more, which is no gain over WebP. The largest image that
/// can be encoded in 512 MiB has 12 megapixels: about 24 s at 9 and 48 s at 8.
fn speed(pixels: &Pixels, effort: Effort) -> u8 {
    let unhurried = u64::from(pixels.width) * u64::from(pixels.height) <= UNHURRIED_PIXELS;
    match effort {
        Effort::Fast => 9,
        Effort::Balanced if unhurried => 8,
        Effort::Balanced => 9,
        Effort::Small if unhurried => 6,
        Effort::Small => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_images_are_encoded_faster() {
        let speed_of = |width: u32, effort| {
            let pixels = Pixels { width, height: 1024, alpha: false, data: Vec::new() };
            speed(&pixels, effort)
        };
        assert_eq!([Effort::Fast, Effort::Balanced, Effort::Small].map(|effort| speed_of(2048, effort)), [9, 8, 6]);
        assert_eq!([Effort::Fast, Effort::Balanced, Effort::Small].map(|effort| speed_of(2049, effort)), [9, 9, 8]);
    }
}
