//! Pixels to WebP, by libwebp.
#![allow(unsafe_code)]

use std::mem::zeroed;

use libwebp_sys as lib;

use crate::imaging::error::Error;
use crate::imaging::pixels::Pixels;
use crate::imaging::preset::Effort;
use crate::imaging::tuning::Tuning;

/// libwebp's own default of 0 to 6.
const USUAL_METHOD: i32 = 4;

/// libwebp's method: 2 takes about half the time of 4 at the same size and 0.6 less SSIMULACRA2.
const fn method(effort: Effort) -> i32 {
    match effort {
        Effort::Fast => 2,
        Effort::Balanced => USUAL_METHOD,
        Effort::Small => 6,
    }
}

/// Encodes lossy WebP at `quality` 1 to 100, alpha included, without metadata.
///
/// # Errors
/// [`Error::Internal`] if a side is over 16,383 pixels or memory is short.
pub(in crate::imaging) fn encode(pixels: &Pixels, tuning: Tuning) -> Result<Vec<u8>, Error> {
    run(pixels, f32::from(tuning.quality.clamp(1, 100)), method(tuning.effort), false)
}

/// Encodes lossless WebP; colours under fully transparent pixels are not kept.
///
/// # Errors
/// As [`encode`].
pub(in crate::imaging) fn encode_lossless(pixels: &Pixels, effort: Effort) -> Result<Vec<u8>, Error> {
    // Without loss, the "quality" too is only how hard the encoder tries.
    let (tries, method) = match effort {
        Effort::Fast => (30.0, 1),
        Effort::Balanced => (75.0, USUAL_METHOD),
        Effort::Small => (100.0, 6),
    };
    run(pixels, tries, method, true)
}

/// Frees what libwebp took, whichever way `run` is left.
struct Session {
    picture: lib::WebPPicture,
    writer: lib::WebPMemoryWriter,
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: both were initialised by libwebp in `run` before the session came to be.
        unsafe {
            lib::WebPPictureFree(&mut self.picture);
            lib::WebPMemoryWriterClear(&mut self.writer);
        }
    }
}

fn run(pixels: &Pixels, quality: f32, method: i32, lossless: bool) -> Result<Vec<u8>, Error> {
    let fault = |what: &str| Error::Internal(format!("libwebp: {what}").into());
    let stride = pixels.width as usize * pixels.channels();
    if pixels.data.len() != stride * pixels.height as usize {
        return Err(fault("the pixels do not fill their frame"));
    }
    let side = |side: u32| i32::try_from(side).map_err(|_| fault("a side is too long"));
    let (width, height, stride) = (side(pixels.width)?, side(pixels.height)?, side(stride as u32)?);
    let abi = lib::WEBP_ENCODER_ABI_VERSION as i32;
    // SAFETY: the three structures are plain C data for which zeroes are valid, and libwebp fills them in before they
    // are used. `data` holds `height` rows of `stride` bytes, as checked above, and libwebp copies them. `writer`
    // outlives the call that writes to it and does not move: it is reached through `session`, which stays where it is.
    unsafe {
        let mut config: lib::WebPConfig = zeroed();
        if lib::WebPConfigInitInternal(&mut config, lib::WebPPreset::WEBP_PRESET_DEFAULT, quality, abi) == 0 {
            return Err(fault("another version of it is linked"));
        }
        config.method = method;
        config.lossless = i32::from(lossless);
        let mut session = Session { picture: zeroed(), writer: zeroed() };
        lib::WebPMemoryWriterInit(&mut session.writer);
        if lib::WebPPictureInitInternal(&mut session.picture, abi) == 0 {
            return Err(fault("another version of it is linked"));
        }
        session.picture.width = width;
        session.picture.height = height;
        session.picture.use_argb = i32::from(lossless);
        let import = if pixels.alpha { lib::WebPPictureImportRGBA } else { lib::WebPPictureImportRGB };
        if import(&mut session.picture, pixels.data.as_ptr(), stride) == 0 {
            return Err(fault("no memory for the picture"));
        }
        session.picture.writer = Some(lib::WebPMemoryWrite);
        session.picture.custom_ptr = (&raw mut session.writer).cast();
        if lib::WebPEncode(&config, &mut session.picture) == 0 {
            return Err(fault(&format!("{:?}", session.picture.error_code)));
        }
        Ok(std::slice::from_raw_parts(session.writer.mem, session.writer.size).to_vec())
    }
}
