//! Lossy WebP without transparency to pixels, by libwebp, into a buffer of the size that the header was checked for.
//! Everything else that WebP can hold is read by a decoder in Rust: the tables of a lossless stream may take far more
//! memory than its header tells.
#![allow(unsafe_code)]

use std::ptr::null_mut;

use libwebp_sys as lib;
use libwebp_sys::VP8StatusCode::{self, VP8_STATUS_NOT_ENOUGH_DATA, VP8_STATUS_OK, VP8_STATUS_SUSPENDED};

use crate::imaging::decoded::{Decoded, MISSING, is_worth_showing};
use crate::imaging::error::Error;
use crate::imaging::header::Header;
use crate::imaging::pixels::Pixels;
use crate::imaging::warning::Warning;

/// Samples of a pixel.
const CHANNELS: usize = 3;

/// Decodes `source`. What a cut-off file no longer has is grey.
///
/// # Errors
/// [`Error::Undecodable`] if the data make no sense or next to none are there.
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
    Ok(Decoded { pixels, flaw: header.truncated.then_some(Warning::Truncated) })
}

fn refusal(status: VP8StatusCode) -> Error {
    match status {
        VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY => Error::damaged("its decoder found no memory"),
        VP8StatusCode::VP8_STATUS_UNSUPPORTED_FEATURE => Error::unsupported("a WebP of a kind that is not read"),
        VP8_STATUS_SUSPENDED | VP8_STATUS_NOT_ENOUGH_DATA => Error::damaged("it ends before its pixels"),
        _ => Error::damaged("its pixels make no sense"),
    }
}

/// Writes the pixels to `data`, and gives the rows that are there with the reason why there are no more.
fn read(source: &[u8], header: &Header, data: &mut [u8]) -> Result<(usize, VP8StatusCode), Error> {
    let mut config = lib::WebPDecoderConfig::new().map_err(|()| Error::Internal("another libwebp is linked".into()))?;
    let abi = lib::WEBP_DECODER_ABI_VERSION as i32;
    // SAFETY: reads `source`, of which it is told the length, and writes the features.
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
    // SAFETY: the output is `data`, of which libwebp is told the length and the stride; it checks that the picture fits
    // and allocates none of its own, so there is nothing to free.
    let status = unsafe { lib::WebPDecode(source.as_ptr(), source.len(), &mut config) };
    Ok((if status == VP8_STATUS_OK { rows } else { 0 }, status))
}

/// As many rows as a cut-off file has. `config` names the output.
fn read_what_is_there(source: &[u8], config: &mut lib::WebPDecoderConfig) -> (usize, VP8StatusCode) {
    /// Frees the decoder, whichever way the function is left.
    struct Session(*mut lib::WebPIDecoder);
    impl Drop for Session {
        fn drop(&mut self) {
            // SAFETY: made by libwebp and freed once; null is allowed. The output belongs to the caller.
            unsafe { lib::WebPIDelete(self.0) };
        }
    }
    // SAFETY: no data are given yet; the output is the caller's, as for a whole file, and outlives the session.
    let session = Session(unsafe { lib::WebPIDecode(null_mut(), 0, config) });
    if session.0.is_null() {
        return (0, VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY);
    }
    // SAFETY: the decoder is live, and `source` stays where it is until the session ends.
    let status = unsafe { lib::WebPIUpdate(session.0, source.as_ptr(), source.len()) };
    let mut rows = 0;
    // SAFETY: only reads from the live decoder; pointers that are null are passed over.
    unsafe { lib::WebPIDecGetRGB(session.0, &mut rows, null_mut(), null_mut(), null_mut()) };
    (usize::try_from(rows).unwrap_or(0), status)
}
