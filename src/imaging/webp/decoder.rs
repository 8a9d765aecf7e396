//! Decodes opaque lossy WebP with libwebp, into a buffer of the size checked in the header.
//!
//! All other WebP is decoded in Rust: the tables of a lossless stream may need far more memory than its header
//! suggests.
#![allow(unsafe_code)]

use std::ptr::null_mut;

use libwebp_sys as lib;
use libwebp_sys::VP8StatusCode::{self, VP8_STATUS_NOT_ENOUGH_DATA, VP8_STATUS_OK, VP8_STATUS_SUSPENDED};

use crate::imaging::decoded::{Decoded, MISSING, is_worth_showing};
use crate::imaging::error::Error;
use crate::imaging::header::Header;
use crate::imaging::pixels::Pixels;
use crate::imaging::warning::Warning;

/// Samples per pixel.
const CHANNELS: usize = 3;

/// Decodes `source`. Missing pixels of a truncated file are gray.
///
/// # Errors
/// [`Error::Undecodable`] if the data is invalid or almost none exists.
pub(in crate::imaging) fn decode(source: &[u8], header: &Header) -> Result<Decoded, Error> {
    let (width, height) = (header.width, header.height);
    let row_bytes = width as usize * CHANNELS;
    let mut data = vec![0; row_bytes * height as usize];
    let (rows, status) = read(source, header, &mut data)?;
    data[rows * row_bytes..].fill(MISSING);
    let cut_off = matches!(status, VP8_STATUS_SUSPENDED | VP8_STATUS_NOT_ENOUGH_DATA);
    let whole = status == VP8_STATUS_OK || header.truncated && cut_off && is_worth_showing(&data);
    if !whole {
        return Err(refusal(status));
    }
    let pixels = Pixels { width, height, alpha: false, data };
    Ok(Decoded { pixels, warning: header.truncated.then_some(Warning::Truncated) })
}

fn refusal(status: VP8StatusCode) -> Error {
    match status {
        VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY => Error::damaged("its decoder ran out of memory"),
        VP8StatusCode::VP8_STATUS_UNSUPPORTED_FEATURE => Error::unsupported("a WebP of an unsupported kind"),
        VP8_STATUS_SUSPENDED | VP8_STATUS_NOT_ENOUGH_DATA => Error::damaged("it ends before its pixels"),
        _ => Error::damaged("its pixel data is invalid"),
    }
}

/// Writes the pixels to `data`; returns the number of rows, and the reason if some are missing.
fn read(source: &[u8], header: &Header, data: &mut [u8]) -> Result<(usize, VP8StatusCode), Error> {
    let mut config = lib::WebPDecoderConfig::new().map_err(|()| Error::Internal("another libwebp is linked".into()))?;
    let abi = lib::WEBP_DECODER_ABI_VERSION as i32;
    // SAFETY: reads `source` within the given length and writes the features.
    let status = unsafe { lib::WebPGetFeaturesInternal(source.as_ptr(), source.len(), &mut config.input, abi) };
    if status != VP8_STATUS_OK {
        return Err(refusal(status));
    }
    let side = |side: i32| u32::try_from(side).unwrap_or(0);
    let (stride, rows) = (header.width as usize * CHANNELS, header.height as usize);
    let matches = (side(config.input.width), side(config.input.height)) == (header.width, header.height);
    if !matches || config.input.has_animation != 0 || data.len() != stride * rows {
        return Err(Error::damaged("its dimensions contradict each other"));
    }
    config.output.colorspace = lib::WEBP_CSP_MODE::MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA = lib::WebPRGBABuffer { rgba: data.as_mut_ptr(), stride: stride as i32, size: data.len() };
    if header.truncated {
        return Ok(read_what_is_there(source, &mut config));
    }
    // SAFETY: the output is `data`, with the given length and stride. libwebp checks that the image fits and allocates
    // no output, so nothing must be freed.
    let status = unsafe { lib::WebPDecode(source.as_ptr(), source.len(), &mut config) };
    Ok((if status == VP8_STATUS_OK { rows } else { 0 }, status))
}

/// Decodes the rows that a truncated file has. `config` describes the output.
fn read_what_is_there(source: &[u8], config: &mut lib::WebPDecoderConfig) -> (usize, VP8StatusCode) {
    /// Frees the decoder on drop.
    struct Session(*mut lib::WebPIDecoder);
    impl Drop for Session {
        fn drop(&mut self) {
            // SAFETY: created by libwebp and freed once; null is allowed. The output belongs to the caller.
            unsafe { lib::WebPIDelete(self.0) };
        }
    }
    // SAFETY: no data is passed yet; the output belongs to the caller and outlives the session.
    let session = Session(unsafe { lib::WebPIDecode(null_mut(), 0, config) });
    if session.0.is_null() {
        return (0, VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY);
    }
    // SAFETY: the decoder is live, and `source` outlives the session.
    let status = unsafe { lib::WebPIUpdate(session.0, source.as_ptr(), source.len()) };
    let mut rows = 0;
    // SAFETY: only reads from the live decoder; null pointers are ignored.
    unsafe { lib::WebPIDecGetRGB(session.0, &mut rows, null_mut(), null_mut(), null_mut()) };
    (usize::try_from(rows).unwrap_or(0), status)
}
