//! Pixels to AVIF, by ravif (rav1e): still pictures of eight bits, colours at full resolution.

use ravif::{AlphaColorMode, BitDepth, EncodedImage, Encoder, Img, RGB8, RGBA8};

use super::encode::Tuning;
use super::error::Error;
use super::pixels::Pixels;
use super::preset::Effort;

/// Encodes AVIF, alpha included, without metadata. The same pixels give the same bytes on every machine: the tiles of
/// the picture would follow the number of threads, so there is always one.
///
/// # Errors
/// [`Error::Internal`] if the encoder refuses.
pub(super) fn encode(pixels: &Pixels, tuning: Tuning) -> Result<Vec<u8>, Error> {
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

/// ravif's quality for ours.
fn quality(ours: u8) -> f32 {
    f32::from(ours.clamp(1, 100))
}

fn speed(pixels: &Pixels, effort: Effort) -> u8 {
    let _ = pixels;
    match effort {
        Effort::Fast => 10,
        Effort::Balanced => 8,
        Effort::Small => 6,
    }
}
