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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::header;
    use crate::imaging::tests::fixtures::{Writing, gradient, jpeg, jpeg_with, noise};

    fn header_of(source: &[u8]) -> Header {
        header::read(source, &Limits::default()).expect("its header is whole")
    }

    fn progressive() -> Vec<u8> {
        jpeg_with(&noise(64, 64, 3), Writing { progressive: true, ..Writing::default() })
    }

    #[test]
    fn no_more_is_decoded_than_is_needed() {
        let source = jpeg(&gradient(801, 603));
        let (header, limits) = (header_of(&source), Limits::default());
        let whole = decode(&source, &header, &limits, (801, 603)).expect("decodes").pixels;
        assert_eq!((whole.width, whole.height), (801, 603));
        for (needed, block) in [(260, 4), (130, 2), (60, 1)] {
            let small = decode(&source, &header, &limits, (needed, needed * 603 / 801)).expect("decodes").pixels;
            assert_eq!((small.width, small.height), (scaled(801, block), scaled(603, block)));
            let middle = |pixels: &Pixels| {
                let at = (pixels.height / 2 * pixels.width + pixels.width / 2) as usize * 3;
                [pixels.data[at], pixels.data[at + 1], pixels.data[at + 2]]
            };
            let apart = middle(&whole).into_iter().zip(middle(&small)).map(|(one, other)| one.abs_diff(other));
            assert!(apart.max() <= Some(6), "{:?} and {:?}", middle(&whole), middle(&small));
        }
    }

    #[test]
    fn scans_that_were_not_counted_are_not_read() {
        let mut data = vec![0; 64 * 64 * 3];
        let source = progressive();
        let reading = Reading { source: &source, cmyk: false, block: 8, size: (64, 64), most_scans: 2 };
        let outcome = decompress(&reading, &mut data);
        assert_eq!((outcome.rows, outcome.error), (0, Some(Error::damaged("its scans have no end"))));
    }

    #[test]
    fn libjpegs_own_words_say_what_is_wrong() {
        let mut source = jpeg(&gradient(64, 64));
        let table = source.windows(2).position(|window| window == [0xff, 0xc4]).expect("a table");
        source[table + 5..table + 21].fill(0xff);
        let error = decode(&source, &header_of(&source), &Limits::default(), (64, 64)).map(|_| ());
        assert_eq!(error, Err(Error::damaged("Bogus Huffman table definition")));
    }

    #[test]
    fn a_file_cut_within_a_segment_shows_the_scans_before_it() {
        let source = progressive();
        let last = source.windows(2).rposition(|window| window == [0xff, 0xda]).expect("a scan");
        let cut = &source[..last + 5];
        let decoded = decode(cut, &header_of(cut), &Limits::default(), (64, 64)).expect("there are scans");
        assert_eq!(decoded.flaw, Some(Warning::Truncated));
    }
}
