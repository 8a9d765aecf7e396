//! Pixels to the formats that go out. None of them carries metadata.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::error::Error;
use super::pixels::Pixels;
use super::preset::{Effort, OutputFormat};
use super::{jpeg, webp};

/// How the encoders weigh what a rendition looks like, its bytes and their own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// 1 to 100, for the lossy formats.
    pub quality: u8,
    /// Time against bytes.
    pub effort: Effort,
}

/// Encodes `pixels`.
///
/// # Errors
/// [`Error::Internal`] if the encoder refuses.
pub(super) fn encode(pixels: &Pixels, format: OutputFormat, tuning: Tuning) -> Result<Vec<u8>, Error> {
    match format {
        OutputFormat::Jpeg => jpeg::encode(pixels, tuning),
        OutputFormat::Webp => webp::encode(pixels, tuning),
        OutputFormat::Png => png(pixels, CompressionType::Default),
    }
}

/// Encodes without loss, taking the time to be small.
///
/// # Errors
/// [`Error::Internal`] if the encoder refuses.
pub(super) fn encode_lossless(pixels: &Pixels, format: OutputFormat) -> Result<Vec<u8>, Error> {
    match format {
        OutputFormat::Webp => webp::encode_lossless(pixels),
        OutputFormat::Jpeg | OutputFormat::Png => png(pixels, CompressionType::Best),
    }
}

fn png(pixels: &Pixels, compression: CompressionType) -> Result<Vec<u8>, Error> {
    let grey: Vec<u8>;
    let (data, colour) = if pixels.alpha {
        (&pixels.data, ExtendedColorType::Rgba8)
    } else if pixels.data.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]) {
        grey = pixels.data.iter().step_by(3).copied().collect();
        (&grey, ExtendedColorType::L8)
    } else {
        (&pixels.data, ExtendedColorType::Rgb8)
    };
    let mut bytes = Vec::with_capacity(data.len() / 4);
    PngEncoder::new_with_quality(&mut bytes, compression, FilterType::Adaptive)
        .write_image(data, pixels.width, pixels.height, colour)
        .map_err(|error| Error::Internal(error.to_string().into()))?;
    Ok(bytes)
}
