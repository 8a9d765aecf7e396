//! Decodes files to pixels. Every decoder returns what a truncated file still contains.

use std::io::Cursor;

use image::codecs::{png::PngDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageError};

use super::avif;
use super::bmp;
use super::decoded::{Decoded, MISSING, is_worth_showing};
use super::error::Error;
use super::gif;
use super::header::webp::is_plain_lossy;
use super::header::{Header, png};
use super::jpeg;
use super::limits::Limits;
use super::pixels::{Pixels, Samples};
use super::sniff::SourceFormat;
use super::tiff;
use super::warning::Warning;
use super::webp;

/// Decodes the first image of `source`, up to the end given by its header.
///
/// At most `largest` stored pixels across and down are needed, so formats with cheap reduced decoding may return a
/// smaller image.
///
/// # Errors
/// [`Error::Undecodable`] if no pixels can be decoded; [`Error::UnsupportedFormat`] for an unsupported variety of a
/// format.
pub(super) fn decode(source: &[u8], header: &Header, limits: &Limits, largest: (u32, u32)) -> Result<Decoded, Error> {
    match header.format {
        SourceFormat::Jpeg => jpeg::decode(source, header, limits, largest),
        SourceFormat::Png => {
            let source = png::only_pixels(source);
            let bounds = allocation_bound(limits);
            read(PngDecoder::with_limits(Cursor::new(&*source), bounds), header)
        }
        SourceFormat::Webp if is_plain_lossy(source) => webp::decode(source, header),
        SourceFormat::Webp => read(WebPDecoder::new(Cursor::new(source)), header),
        SourceFormat::Gif => gif::decode(source, header, limits),
        SourceFormat::Avif => avif::decode(source, limits),
        SourceFormat::Bmp => bmp::decode(source, limits),
        SourceFormat::Tiff => tiff::decode(source, limits),
    }
}

fn allocation_bound(limits: &Limits) -> image::Limits {
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(limits.max_memory);
    bounds
}

fn refusal(error: ImageError) -> Error {
    match error {
        ImageError::Unsupported(what) => Error::unsupported(format!("an image of an unsupported kind ({what})")),
        other => Error::damaged(other.to_string()),
    }
}

fn read<D: ImageDecoder>(decoder: Result<D, ImageError>, header: &Header) -> Result<Decoded, Error> {
    let decoder = decoder.map_err(refusal)?;
    let (width, height) = decoder.dimensions();
    if (width, height) != (header.width, header.height) {
        return Err(Error::damaged("its dimensions contradict each other"));
    }
    let color = decoder.color_type();
    let (samples, wide) = match color {
        ColorType::L8 => (Samples::Gray, false),
        ColorType::La8 => (Samples::GrayAlpha, false),
        ColorType::Rgb8 => (Samples::Color, false),
        ColorType::Rgba8 => (Samples::ColorAlpha, false),
        ColorType::L16 => (Samples::Gray, true),
        ColorType::La16 => (Samples::GrayAlpha, true),
        ColorType::Rgb16 => (Samples::Color, true),
        ColorType::Rgba16 => (Samples::ColorAlpha, true),
        other => return Err(Error::unsupported(format!("an image with {other:?} pixels"))),
    };
    let mut data = vec![MISSING; decoder.total_bytes() as usize];
    let outcome = decoder.read_image(&mut data);
    let warning = accept(outcome.map_err(refusal), header, &data)?;
    let pixels = if wide {
        let wide = data.chunks_exact(2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
        Pixels::from_16_bit(width, height, samples, wide)
    } else {
        Pixels::from_8_bit(width, height, samples, data)
    };
    Ok(Decoded { pixels, warning })
}

/// Returns the warning for `data`; returns the decoder's error if almost no data exists, or if the file is damaged
/// rather than truncated.
fn accept(outcome: Result<(), Error>, header: &Header, data: &[u8]) -> Result<Option<Warning>, Error> {
    match outcome {
        Ok(()) => Ok(header.truncated.then_some(Warning::Truncated)),
        Err(_) if header.truncated && is_worth_showing(data) => Ok(Some(Warning::Truncated)),
        Err(error) => Err(error),
    }
}
