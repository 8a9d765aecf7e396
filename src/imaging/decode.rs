//! From the bytes of a file to pixels. Each format has its decoder; all of them give what a cut-off file still holds.

use std::io::Cursor;

use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageError};
use tiff::ColorType as TiffColour;
use tiff::decoder::DecodingResult;

use super::bmp;
use super::decoded::{Decoded, Inks, LEAST_SHARE, MISSING, inks_to_light};
use super::error::Error;
use super::header::{Header, png, tiff as tiff_header};
use super::jpeg;
use super::limits::Limits;
use super::pixels::{Pixels, Samples};
use super::sniff::SourceFormat;
use super::warning::Warning;

/// Decodes the (first) picture of `source`, which ends where its header says. No more than `largest` pixels across and
/// down, as stored, are needed of it: formats that can be decoded smaller at less cost may come out smaller than stored.
///
/// # Errors
/// [`Error::Undecodable`] if no pixel can be had; [`Error::UnsupportedFormat`] for a rare kind of a known format.
pub(super) fn decode(source: &[u8], header: &Header, limits: &Limits, largest: (u32, u32)) -> Result<Decoded, Error> {
    match header.format {
        SourceFormat::Jpeg => jpeg::decode(source, header, limits, largest),
        SourceFormat::Png => {
            let source = png::only_pixels(source);
            let bounds = allocation_bound(limits);
            read(PngDecoder::with_limits(Cursor::new(&*source), bounds), header)
        }
        SourceFormat::Webp => read(WebPDecoder::new(Cursor::new(source)), header),
        SourceFormat::Gif => read(bounded(GifDecoder::new(Cursor::new(source)), limits), header),
        SourceFormat::Bmp => bmp::decode(source, limits),
        SourceFormat::Tiff => read_tiff(source, header, limits),
    }
}

fn allocation_bound(limits: &Limits) -> image::Limits {
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(limits.max_memory);
    bounds
}

fn bounded<D: ImageDecoder>(decoder: Result<D, ImageError>, limits: &Limits) -> Result<D, ImageError> {
    let mut decoder = decoder?;
    decoder.set_limits(allocation_bound(limits))?;
    Ok(decoder)
}

fn refusal(error: ImageError) -> Error {
    match error {
        ImageError::Unsupported(what) => Error::unsupported(format!("a picture of a kind that is not read ({what})")),
        other => Error::damaged(other.to_string()),
    }
}

fn read<D: ImageDecoder>(decoder: Result<D, ImageError>, header: &Header) -> Result<Decoded, Error> {
    let decoder = decoder.map_err(refusal)?;
    let (width, height) = decoder.dimensions();
    if (width, height) != (header.width, header.height) {
        return Err(Error::damaged("its dimensions contradict each other"));
    }
    let colour = decoder.color_type();
    let (samples, wide) = match colour {
        ColorType::L8 => (Samples::Grey, false),
        ColorType::La8 => (Samples::GreyAlpha, false),
        ColorType::Rgb8 => (Samples::Colour, false),
        ColorType::Rgba8 => (Samples::ColourAlpha, false),
        ColorType::L16 => (Samples::Grey, true),
        ColorType::La16 => (Samples::GreyAlpha, true),
        ColorType::Rgb16 => (Samples::Colour, true),
        ColorType::Rgba16 => (Samples::ColourAlpha, true),
        other => return Err(Error::unsupported(format!("a picture with {other:?} pixels"))),
    };
    let mut data = vec![MISSING; decoder.total_bytes() as usize];
    let outcome = decoder.read_image(&mut data);
    let flaw = accept(outcome.map_err(refusal), header, &data)?;
    let pixels = if wide {
        let wide = data.chunks_exact(2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
        Pixels::from_16_bit(width, height, samples, wide)
    } else {
        Pixels::from_8_bit(width, height, samples, data)
    };
    Ok(Decoded { pixels, flaw })
}

/// What is wrong with `data`; the decoder's error if it is next to nothing, or if the file is damaged and not cut off.
fn accept(outcome: Result<(), Error>, header: &Header, data: &[u8]) -> Result<Option<Warning>, Error> {
    let is_worth_it = || data.iter().filter(|byte| **byte != MISSING).count() >= data.len() / LEAST_SHARE;
    match outcome {
        Ok(()) => Ok(header.truncated.then_some(Warning::Truncated)),
        Err(_) if header.truncated && is_worth_it() => Ok(Some(Warning::Truncated)),
        Err(error) => Err(error),
    }
}

fn read_tiff(source: &[u8], header: &Header, limits: &Limits) -> Result<Decoded, Error> {
    let mut decoder = tiff_header::open(source, limits)?;
    let colour = decoder.colortype().map_err(tiff_header::refusal)?;
    let palette = decoder.get_tag_u16_vec(tiff::tags::Tag::ColorMap);
    let image = decoder.read_image().map_err(tiff_header::refusal)?;
    let (width, height) = (header.width, header.height);
    let samples = match colour {
        TiffColour::Gray(_) => Samples::Grey,
        TiffColour::GrayA(_) => Samples::GreyAlpha,
        TiffColour::RGB(_) => Samples::Colour,
        _ => Samples::ColourAlpha,
    };
    let pixels = match (colour, image) {
        (TiffColour::Gray(1), DecodingResult::U8(bits)) => unpack_bits(width, height, &bits),
        (TiffColour::Palette(8), DecodingResult::U8(indices)) => {
            let palette = palette.map_err(tiff_header::refusal)?;
            from_palette(width, height, &indices, &palette)
        }
        (TiffColour::CMYK(8), DecodingResult::U8(inks)) => {
            let mut pixels = Pixels { width, height, alpha: true, data: inks };
            inks_to_light(&mut pixels, Inks::Plain);
            Ok(pixels)
        }
        (_, DecodingResult::U8(data)) => Ok(Pixels::from_8_bit(width, height, samples, data)),
        (_, DecodingResult::U16(data)) => Ok(Pixels::from_16_bit(width, height, samples, data.into_iter())),
        _ => Err(Error::unsupported("a TIFF whose samples are not read")),
    }?;
    let expected = u64::from(width) * u64::from(height) * pixels.channels() as u64;
    if pixels.data.len() as u64 != expected {
        return Err(Error::damaged("it has too few pixels"));
    }
    Ok(Decoded { pixels, flaw: None })
}

fn unpack_bits(width: u32, height: u32, bits: &[u8]) -> Result<Pixels, Error> {
    let row_bytes = (width as usize).div_ceil(8);
    if bits.len() < row_bytes * height as usize {
        return Err(Error::damaged("it has too few pixels"));
    }
    let row = |row: &[u8]| {
        (0..width as usize).map(|x| if row[x / 8] << (x % 8) & 0x80 == 0 { 0 } else { 255 }).collect::<Vec<u8>>()
    };
    let greys = bits.chunks_exact(row_bytes).take(height as usize).flat_map(row).collect();
    Ok(Pixels::from_8_bit(width, height, Samples::Grey, greys))
}

/// All reds stand first in the palette, then all greens, then all blues, 16 bits each.
fn from_palette(width: u32, height: u32, indices: &[u8], palette: &[u16]) -> Result<Pixels, Error> {
    let colours = palette.len() / 3;
    if colours < 256 {
        return Err(Error::damaged("its palette is too short"));
    }
    let sample = |index: &u8, part: usize| (palette[part * colours + usize::from(*index)] >> 8) as u8;
    let data = indices.iter().flat_map(|index| [sample(index, 0), sample(index, 1), sample(index, 2)]).collect();
    Ok(Pixels { width, height, alpha: false, data })
}
