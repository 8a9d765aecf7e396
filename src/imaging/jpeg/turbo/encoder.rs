//! Encodes JPEG with libjpeg.

use super::libjpeg::{Coding, Writing, compress};
use crate::imaging::error::Error;
use crate::imaging::jpeg::FULL_COLOR_EDGE;
use crate::imaging::pixels::Pixels;
use crate::imaging::preset::Effort;
use crate::imaging::tuning::Tuning;

/// Encodes a JPEG without metadata: progressive for the effort `small`, otherwise baseline. `pixels` has no alpha.
///
/// # Errors
/// [`Error::Internal`] if a side exceeds 65,500 pixels.
pub(in crate::imaging) fn encode(pixels: &Pixels, tuning: Tuning) -> Result<Vec<u8>, Error> {
    let coding = match tuning.effort {
        Effort::Fast => Coding::Plain,
        Effort::Balanced => Coding::Optimized,
        Effort::Small => Coding::Smallest,
    };
    let half_color = pixels.width.max(pixels.height) > FULL_COLOR_EDGE;
    let writing = Writing { quality: tuning.quality.clamp(1, 100), half_color, coding };
    compress(&pixels.data, (pixels.width, pixels.height), &writing)
}
