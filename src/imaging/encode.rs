//! Pixels to the formats that go out. None of them carries metadata.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::error::Error;
use super::pixels::Pixels;
use super::preset::OutputFormat;
use super::{jpeg, webp};

/// Encodes `pixels`; `quality`, 1 to 100, counts for the lossy formats.
///
/// # Errors
/// [`Error::Internal`] if the encoder refuses.
pub(super) fn encode(pixels: &Pixels, format: OutputFormat, quality: u8) -> Result<Vec<u8>, Error> {
    match format {
        OutputFormat::Jpeg => jpeg::encode(pixels, quality),
        OutputFormat::Webp => webp::encode(pixels, quality),
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
