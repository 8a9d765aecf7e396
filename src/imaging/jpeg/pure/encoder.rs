//! Encodes JPEG with jpeg-encoder.

use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use crate::imaging::error::Error;
use crate::imaging::jpeg::FULL_COLOR_EDGE;
use crate::imaging::pixels::Pixels;
use crate::imaging::preset::Effort;
use crate::imaging::tuning::Tuning;

/// Encodes a JPEG without metadata: progressive for the effort `small`, otherwise baseline. `pixels` has no alpha.
///
/// # Errors
/// [`Error::Internal`] if a side exceeds 65,535 pixels.
pub(in crate::imaging) fn encode(pixels: &Pixels, tuning: Tuning) -> Result<Vec<u8>, Error> {
    let side = |pixels: u32| {
        u16::try_from(pixels).map_err(|_| Error::Internal("a JPEG with more than 65535 pixels per side".into()))
    };
    let (width, height) = (side(pixels.width)?, side(pixels.height)?);
    let mut bytes = Vec::with_capacity(pixels.data.len() / 16);
    let mut encoder = Encoder::new(&mut bytes, tuning.quality.clamp(1, 100));
    encoder.set_optimized_huffman_tables(tuning.effort != Effort::Fast);
    encoder.set_progressive(tuning.effort == Effort::Small);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    let small = pixels.width.max(pixels.height) <= FULL_COLOR_EDGE;
    encoder.set_sampling_factor(if small { SamplingFactor::F_1_1 } else { SamplingFactor::F_2_2 });
    let outcome = encoder.encode(&pixels.data, width, height, ColorType::Rgb);
    outcome.map_err(|error| Error::Internal(error.to_string().into()))?;
    Ok(bytes)
}
