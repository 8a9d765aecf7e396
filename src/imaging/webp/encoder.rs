//! Encodes WebP with libwebp.
#![allow(unsafe_code)]

use std::mem::zeroed;

use libwebp_sys as lib;

use crate::imaging::error::Error;
use crate::imaging::pixels::Pixels;
use crate::imaging::preset::Effort;
use crate::imaging::tuning::Tuning;

/// libwebp's default method; the range is 0 to 6.
const USUAL_METHOD: i32 = 4;

/// Returns libwebp's method: 2 takes about half the time of 4, with equal size and 0.6 less SSIMULACRA2.
const fn method(effort: Effort) -> i32 {
    match effort {
        Effort::Fast => 2,
        Effort::Balanced => USUAL_METHOD,
        Effort::Small => 6,
    }
}

/// Encodes lossy WebP with alpha and without metadata.
///
/// # Errors
/// [`Error::Internal`] if a side exceeds 16,383 pixels or memory runs out.
pub(in crate::imaging) fn encode(pixels: &Pixels, tuning: Tuning) -> Result<Vec<u8>, Error> {
    run(pixels, f32::from(tuning.quality.clamp(1, 100)), method(tuning.effort), false)
}

/// Encodes lossless WebP; colors of fully transparent pixels are dropped.
///
/// # Errors
/// As [`encode`].
pub(in crate::imaging) fn encode_lossless(pixels: &Pixels, effort: Effort) -> Result<Vec<u8>, Error> {
    // In lossless mode, "quality" is the encoder's effort.
    let (tries, method) = match effort {
        Effort::Fast => (30.0, 1),
        Effort::Balanced => (75.0, USUAL_METHOD),
        Effort::Small => (100.0, 6),
    };
    run(pixels, tries, method, true)
}

/// Frees libwebp's memory on drop.
struct Session {
    image: lib::WebPPicture,
    writer: lib::WebPMemoryWriter,
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: `run` initialized both with libwebp before it created the session.
        unsafe {
            lib::WebPPictureFree(&mut self.image);
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
    // SAFETY: the three structures are plain C data for which zeros are valid; libwebp initializes them before use.
    // `data` holds `height` rows of `stride` bytes, as checked above, and libwebp copies them. `writer` outlives the
    // call that writes to it and does not move, because `session` owns it and stays in place.
    unsafe {
        let mut config: lib::WebPConfig = zeroed();
        if lib::WebPConfigInitInternal(&mut config, lib::WebPPreset::WEBP_PRESET_DEFAULT, quality, abi) == 0 {
            return Err(fault("another version of it is linked"));
        }
        config.method = method;
        config.lossless = i32::from(lossless);
        let mut session = Session { image: zeroed(), writer: zeroed() };
        lib::WebPMemoryWriterInit(&mut session.writer);
        if lib::WebPPictureInitInternal(&mut session.image, abi) == 0 {
            return Err(fault("another version of it is linked"));
        }
        session.image.width = width;
        session.image.height = height;
        session.image.use_argb = i32::from(lossless);
        let import = if pixels.alpha { lib::WebPPictureImportRGBA } else { lib::WebPPictureImportRGB };
        if import(&mut session.image, pixels.data.as_ptr(), stride) == 0 {
            return Err(fault("no memory for the image"));
        }
        session.image.writer = Some(lib::WebPMemoryWrite);
        session.image.custom_ptr = (&raw mut session.writer).cast();
        if lib::WebPEncode(&config, &mut session.image) == 0 {
            return Err(fault(&format!("{:?}", session.image.error_code)));
        }
        Ok(std::slice::from_raw_parts(session.writer.mem, session.writer.size).to_vec())
    }
}
