//! The first directory of a TIFF file, read by the decoder that reads the pixels later.

use std::io::Cursor;
use std::panic::catch_unwind;

use ::tiff::decoder::{Decoder, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};

use super::Header;
use crate::imaging::error::Error;
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

/// Reads the first directory of a TIFF file.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    catch_unwind(|| read_directory(source, limits)).unwrap_or_else(|_| Err(Error::damaged("its directory is nonsense")))
}

/// The decoder, bounded: no value of a directory, and no buffer, takes more than the limits allow.
pub(in crate::imaging) fn open<'a>(source: &'a [u8], limits: &Limits) -> Result<Decoder<Cursor<&'a [u8]>>, Error> {
    let mut bounds = TiffLimits::default();
    bounds.decoding_buffer_size = usize::try_from(limits.max_memory).unwrap_or(usize::MAX);
    bounds.intermediate_buffer_size = bounds.decoding_buffer_size;
    bounds.ifd_value_size = usize::try_from(limits.max_metadata).unwrap_or(usize::MAX);
    Ok(Decoder::new(Cursor::new(source)).map_err(refusal)?.with_limits(bounds))
}

/// What the decoder's error means for the sender.
pub(in crate::imaging) fn refusal(error: TiffError) -> Error {
    match error {
        TiffError::UnsupportedError(what) => Error::unsupported(format!("a TIFF of a kind that is not read ({what})")),
        other => Error::damaged(other.to_string()),
    }
}

fn read_directory(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let mut decoder = open(source, limits)?;
    let (width, height) = decoder.dimensions().map_err(refusal)?;
    limits.check_size(width, height)?;
    let colour = decoder.colortype().map_err(refusal)?;
    let mut header = Header::new(SourceFormat::Tiff, width, height, source.len());
    (header.samples, header.channels) = match colour {
        ColorType::Gray(1 | 8 | 16) => (1, 3),
        ColorType::GrayA(8 | 16) => (2, 4),
        ColorType::RGB(8 | 16) => (3, 3),
        ColorType::RGBA(8 | 16) | ColorType::CMYK(8) => (4, 4),
        ColorType::Palette(8) => (1, 3),
        other => return Err(Error::unsupported(format!("a TIFF with {other:?} pixels"))),
    };
    header.cmyk = matches!(colour, ColorType::CMYK(_));
    if decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).ok().flatten() == Some(2) && header.samples > 1 {
        return Err(Error::unsupported("a TIFF with a plane for each colour"));
    }
    let orientation = decoder.find_tag_unsigned::<u16>(Tag::Orientation).ok().flatten();
    header.orientation =
        orientation.and_then(|value| u8::try_from(value).ok()).filter(|v| (1..=8).contains(v)).unwrap_or(1);
    header.profile = decoder.get_tag_u8_vec(Tag::IccProfile).ok();
    limits.check_profile(header.profile.as_ref().map_or(0, Vec::len) as u64)?;
    let stored = u64::from(header.samples) * u64::from(colour.bit_depth().div_ceil(8));
    // The decoder's output, one strip or tile more (as large as the picture at worst), and the eight-bit copy.
    header.decode_bytes = header.pixels() * (2 * stored + u64::from(header.channels));
    Ok(header)
}
