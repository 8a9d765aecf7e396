//! JPEG to pixels, by zune-jpeg: no C code reads a stranger's bytes.

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::watched::{Watch, Watched};
use crate::imaging::decoded::{Decoded, Inks, inks_to_light};
use crate::imaging::error::Error;
use crate::imaging::header::{Header, jpeg::is_adobe};
use crate::imaging::limits::Limits;
use crate::imaging::pixels::Pixels;
use crate::imaging::warning::Warning;

const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// Decodes `source`; greys come out as colours, inks are turned into light.
///
/// A whole file is first read strictly. If that fails it is read leniently, and the outcome is called damaged.
///
/// # Errors
/// [`Error::Undecodable`] with the decoder's words.
pub(in crate::imaging) fn decode(
    source: &[u8],
    header: &Header,
    limits: &Limits,
    _largest: (u32, u32),
) -> Result<Decoded, Error> {
    let space = if header.cmyk { ColorSpace::CMYK } else { ColorSpace::RGB };
    let lenient = lenient(space, limits);
    let (outcome, flaw) = if header.truncated {
        // The decoder gives more of a picture that has an end, so it gets one.
        let ended = [source, &END_OF_IMAGE].concat();
        (decode_with(&ended, lenient), Some(Warning::Truncated))
    } else {
        match decode_with(source, lenient.set_strict_mode(true)) {
            Ok(decoded) => (Ok(decoded), None),
            Err(strictly) if strictly.contains(HARMLESS) => (decode_with(source, lenient), None),
            Err(_) => (decode_with(source, lenient), Some(Warning::Damaged)),
        }
    };
    let (mut pixels, rows_made_up) = outcome.map_err(Error::damaged)?;
    let flaw = flaw.or_else(|| (header.gaps || ends_early(header, rows_made_up)).then_some(Warning::Damaged));
    if (pixels.width, pixels.height) != (header.width, header.height) {
        return Err(Error::damaged("its dimensions contradict each other"));
    }
    if header.cmyk {
        inks_to_light(&mut pixels, if is_adobe(source) { Inks::Inverted } else { Inks::Plain });
    }
    Ok(Decoded { pixels, flaw })
}

/// The words with which the strict decoder complains about stray bytes that change no pixel.
const HARMLESS: &str = "Extra bytes between headers";

fn lenient(space: ColorSpace, limits: &Limits) -> DecoderOptions {
    let side = limits.max_side as usize;
    DecoderOptions::new_fast()
        .jpeg_set_out_colorspace(space)
        .jpeg_set_max_scans(limits.max_scans as usize)
        .set_max_width(side)
        .set_max_height(side)
        .set_strict_mode(false)
}

/// Whether more rows of blocks were begun after the last byte than its reader can have held back: 128 bits are at most
/// 64 blocks of two bits each, and no block row of a scan with all components is wider than 32 pixels a block.
fn ends_early(header: &Header, rows_made_up: u32) -> bool {
    header.one_scan && rows_made_up > 2 + 64 / header.width.div_ceil(32)
}

/// The pixels, and how many rows of blocks were begun when there was nothing left to read.
fn decode_with(source: &[u8], options: DecoderOptions) -> Result<(Pixels, u32), String> {
    let watch = Watch::default();
    let polled = watch.clone();
    let mut decoder = JpegDecoder::new_with_options(Watched::new(source, watch.clone()), options);
    decoder.set_cancel_interval(1);
    decoder.set_cancel(move || {
        polled.row_begins();
        false
    });
    let data = decoder.decode().map_err(|error| error.to_string())?;
    let info = decoder.info().ok_or("it has no frame")?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    let alpha = options.jpeg_get_out_colorspace() == ColorSpace::CMYK;
    if data.len() != width as usize * height as usize * if alpha { 4 } else { 3 } {
        return Err("its pixels do not fill its frame".to_owned());
    }
    Ok((Pixels { width, height, alpha, data }, watch.rows_after_end()))
}
