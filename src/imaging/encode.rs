//! Encodes renditions, without metadata.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::error::Error;
use super::pixels::Pixels;
use super::preset::{Effort, OutputFormat};
use super::tuning::Tuning;
use super::{jpeg, webp};

/// Returns the encoder's peak memory in bytes per pixel, the pixels not included: planes or coefficients, a copy on
/// white, the output.
pub(super) const fn encoder_bytes(format: OutputFormat) -> u64 {
    match format {
        OutputFormat::Jpeg | OutputFormat::Webp | OutputFormat::Png => 7,
        OutputFormat::WebpLossless => LOSSLESS_BYTES,
        OutputFormat::Avif => AVIF_BYTES,
    }
}

/// Bytes per pixel of lossless WebP, more than PNG (measured: 25).
pub(super) const LOSSLESS_BYTES: u64 = 32;

/// Bytes per pixel of AVIF (measured: 26 without alpha, which adds a plane and two copies of the pixels).
const AVIF_BYTES: u64 = 40;

/// Encodes `pixels`.
///
/// # Errors
/// [`Error::Internal`] if the encoder fails.
pub(super) fn encode(pixels: &Pixels, format: OutputFormat, tuning: Tuning) -> Result<Vec<u8>, Error> {
    match format {
        OutputFormat::Jpeg if pixels.alpha => jpeg::encode(&pixels.on_white(), tuning),
        OutputFormat::Jpeg => jpeg::encode(pixels, tuning),
        OutputFormat::Webp => webp::encode(pixels, tuning),
        OutputFormat::WebpLossless => webp::encode_lossless(pixels, tuning.effort),
        OutputFormat::Png => png(pixels, tuning.effort),
        OutputFormat::Avif => avif(pixels, tuning),
    }
}

#[cfg(feature = "avif")]
use super::avif::encode as avif;

/// Unreachable: without the feature, the settings reject AVIF presets.
#[cfg(not(feature = "avif"))]
fn avif(_: &Pixels, _: Tuning) -> Result<Vec<u8>, Error> {
    Err(Error::Internal("AVIF is not compiled in".into()))
}

fn png(pixels: &Pixels, effort: Effort) -> Result<Vec<u8>, Error> {
    let compression = match effort {
        Effort::Fast => CompressionType::Fast,
        Effort::Balanced => CompressionType::Default,
        Effort::Small => CompressionType::Best,
    };
    let gray: Vec<u8>;
    let (data, color) = if pixels.alpha {
        (&pixels.data, ExtendedColorType::Rgba8)
    } else if pixels.data.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]) {
        gray = pixels.data.iter().step_by(3).copied().collect();
        (&gray, ExtendedColorType::L8)
    } else {
        (&pixels.data, ExtendedColorType::Rgb8)
    };
    let mut bytes = Vec::with_capacity(data.len() / 4);
    PngEncoder::new_with_quality(&mut bytes, compression, FilterType::Adaptive)
        .write_image(data, pixels.width, pixels.height, color)
        .map_err(|error| Error::Internal(error.to_string().into()))?;
    Ok(bytes)
}
