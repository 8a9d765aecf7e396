//! JPEG to pixels, by libjpeg, at the smallest scale by blocks that still serves.

use super::libjpeg::{Outcome, Reading, decompress};
use crate::imaging::decoded::{Decoded, Inks, MISSING, inks_to_light, is_worth_showing};
use crate::imaging::error::Error;
use crate::imaging::header::Header;
use crate::imaging::header::jpeg::{Segments, is_adobe};
use crate::imaging::jpeg::scale::{block_side, scaled};
use crate::imaging::limits::Limits;
use crate::imaging::pixels::Pixels;
use crate::imaging::warning::Warning;

/// Decodes `source`; greys come out as colours, inks are turned into light.
///
/// # Errors
/// [`Error::Undecodable`] with libjpeg's words.
pub(in crate::imaging) fn decode(
    source: &[u8],
    header: &Header,
    limits: &Limits,
    largest: (u32, u32),
) -> Result<Decoded, Error> {
    let block = block_side((header.width, header.height), largest);
    let (width, height) = (scaled(header.width, block), scaled(header.height, block));
    let row_bytes = width as usize * if header.cmyk { 4 } else { 3 };
    let mut data = vec![0; row_bytes * height as usize];
    let source = if header.truncated { without_cut_segment(source) } else { source };
    let most_scans = limits.most_scans(header.width, header.height);
    let reading = Reading { source, cmyk: header.cmyk, block, size: (width, height), most_scans };
    let outcome = decompress(&reading, &mut data);
    data[outcome.rows * row_bytes..].fill(MISSING);
    let flaw = flaw_of(outcome, header, &data)?;
    let mut pixels = Pixels { width, height, alpha: header.cmyk, data };
    if header.cmyk {
        inks_to_light(&mut pixels, if is_adobe(source) { Inks::Inverted } else { Inks::Plain });
    }
    Ok(Decoded { pixels, flaw })
}

fn flaw_of(outcome: Outcome, header: &Header, data: &[u8]) -> Result<Option<Warning>, Error> {
    let broken = outcome.ends_early || outcome.corrupt || outcome.error.is_some();
    if let Some(error) = outcome.error.filter(|_| !is_worth_showing(data)) {
        return Err(error);
    }
    if header.truncated {
        let shown = is_worth_showing(data) || !outcome.ends_early;
        return if shown { Ok(Some(Warning::Truncated)) } else { Err(Error::damaged("it ends before its pixels")) };
    }
    Ok((broken || header.gaps).then_some(Warning::Damaged))
}

/// A file without the segment that its end cuts off: between two scans, half a table would be an error, while the scans
/// before it make a picture.
fn without_cut_segment(source: &[u8]) -> &[u8] {
    let after = Segments::new(source).last().map_or(0, |segment| segment.end);
    let is_marker = |two: &[u8]| two[0] == 0xff && !matches!(two[1], 0x00 | 0x01 | 0xff | 0xd0..=0xd8);
    let cut = source[after..].windows(2).position(is_marker);
    cut.map_or(source, |at| &source[..after + at])
}
