//! GIF decoding: the first frame on its logical screen.

use std::num::NonZeroU64;

use ::gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::decoded::{Decoded, MIN_SHARE, MISSING};
use super::error::Error;
use super::header::Header;
use super::limits::Limits;
use super::pixels::Pixels;
use super::warning::Warning;

/// Decodes the first frame of `source`; the uncovered screen is transparent.
///
/// # Errors
/// [`Error::Undecodable`] if almost no pixels exist, or if they are damaged rather than truncated.
pub(super) fn decode(source: &[u8], header: &Header, limits: &Limits) -> Result<Decoded, Error> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    options.set_memory_limit(NonZeroU64::new(limits.max_memory).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    // Browsers ignore unknown blocks.
    options.allow_unknown_blocks(true);
    let damaged = |error: ::gif::DecodingError| Error::damaged(error.to_string());
    let mut decoder = options.read_info(source).map_err(damaged)?;
    let frame = decoder.next_frame_info().map_err(damaged)?.ok_or_else(|| Error::damaged("it has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    limits.check_size(across as u32, down as u32)?;
    let mut data = vec![MISSING; across * down * 4];
    let outcome = decoder.read_into_buffer(&mut data);
    let warning = match outcome {
        Ok(()) => header.truncated.then_some(Warning::Truncated),
        Err(error) => {
            let missing = |pixel: &[u8]| pixel == [MISSING; 4];
            let there = data.chunks_exact(4).filter(|pixel| !missing(pixel)).count();
            if !header.truncated || there < (across * down).div_ceil(MIN_SHARE) {
                return Err(damaged(error));
            }
            data.chunks_exact_mut(4).filter(|pixel| missing(pixel)).for_each(|pixel| pixel[3] = 255);
            Some(Warning::Truncated)
        }
    };
    let (width, height) = (header.width as usize, header.height as usize);
    if (left, top, across, down) != (0, 0, width, height) {
        data = lay(&data, (left, top), (across, down), (width, height));
    }
    Ok(Decoded { pixels: Pixels { width: header.width, height: header.height, alpha: true, data }, warning })
}

/// Copies the frame onto a transparent screen, cropped to the screen.
fn lay(frame: &[u8], place: (usize, usize), size: (usize, usize), screen: (usize, usize)) -> Vec<u8> {
    let mut data = vec![0; screen.0 * screen.1 * 4];
    let visible = size.0.min(screen.0.saturating_sub(place.0));
    if visible == 0 {
        return data;
    }
    let rows = frame.chunks_exact(size.0 * 4).zip(data.chunks_exact_mut(screen.0 * 4).skip(place.1));
    for (row, target) in rows {
        target[place.0 * 4..][..visible * 4].copy_from_slice(&row[..visible * 4]);
    }
    data
}
