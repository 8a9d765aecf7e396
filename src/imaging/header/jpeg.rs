//! The markers of a JPEG: its frame, its scans, its profile, its orientation, and whether its end is there.

use super::coverage::Coverage;
use super::{Header, exif};
use crate::imaging::bytes::{be16, slice};
use crate::imaging::error::Error;

use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;

/// What a frame header says.
#[derive(Clone, Copy, Debug)]
struct Frame {
    width: u32,
    height: u32,
    components: u8,
    /// Samples of all components, for eight pixels of the one with the most.
    samples_of_eight: u64,
    /// Rows of pixels in a row of minimum coded units.
    unit_rows: u64,
    progressive: bool,
}

/// What the tables of one scan take at most, in bytes.
const SCAN_BYTES: u64 = 48 << 10;

/// Reads all markers of a JPEG, those between its scans included.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let mut frame: Option<Frame> = None;
    let mut coverage: Option<Coverage> = None;
    let mut scans = 0_u32;
    let mut in_first_scan = 0;
    let mut header = Header::new(SourceFormat::Jpeg, 0, 0, source.len());
    header.truncated = true;
    let mut profile = ProfileParts::default();
    for segment in Segments::new(source) {
        match segment.marker {
            EOI => {
                header.truncated = false;
                header.end = segment.end;
                break;
            }
            SOS => {
                scans = scans.saturating_add(1);
                coverage.iter_mut().for_each(|coverage| coverage.add_scan(segment.body));
                if scans == 1 {
                    in_first_scan = segment.body.first().copied().unwrap_or(0);
                }
            }
            0xc0..=0xcf if !matches!(segment.marker, 0xc4 | 0xc8 | 0xcc) => {
                if frame.is_some() {
                    return Err(Error::damaged("it has two frames"));
                }
                frame = Some(read_frame(segment.marker, segment.body)?);
                coverage = Some(Coverage::of_frame(segment.marker, segment.body));
            }
            APP1 if segment.body.starts_with(b"Exif\0\0") => {
                header.orientation = exif::orientation(segment.body).unwrap_or(header.orientation);
            }
            APP2 => profile.add(segment.body, limits)?,
            _ => {}
        }
    }
    let Some(frame) = frame.filter(|_| scans > 0) else { return Err(Error::damaged("it ends before its pixels")) };
    header.gaps = coverage.is_some_and(|coverage| !coverage.is_complete());
    (header.width, header.height) = (frame.width, frame.height);
    limits.check_size(header.width, header.height)?;
    limits.check_scans(scans, header.width, header.height)?;
    (header.profile, header.profile_broken) = profile.finish();
    header.samples = frame.components;
    header.cmyk = frame.components == 4;
    header.channels = if header.cmyk { 4 } else { 3 };
    header.one_scan = !frame.progressive && in_first_scan == frame.components;
    // The outcome, one row of units with its coefficients and with rows for enlarging it, and lists of the scans.
    let row_bytes = u64::from(frame.width + 32) * (frame.unit_rows + 2) * frame.samples_of_eight / 8 * 4;
    header.decode_bytes = header.pixels() * 3 + row_bytes + u64::from(scans) * SCAN_BYTES;
    Ok(header)
}

/// How the samples of a CMYK picture are to be read: Adobe's programs write them inverted and say so by their marker.
pub(in crate::imaging) fn is_adobe(source: &[u8]) -> bool {
    Segments::new(source)
        .take_while(|segment| segment.marker != SOS)
        .any(|segment| segment.marker == APP14 && segment.body.starts_with(b"Adobe"))
}

fn read_frame(marker: u8, body: &[u8]) -> Result<Frame, Error> {
    let short = || Error::damaged("its frame header is too short");
    match marker {
        0xc0..=0xc2 => {}
        0xc3 | 0xc7 | 0xcb | 0xcf => return Err(Error::unsupported("a lossless JPEG")),
        0xc9 | 0xca => return Err(Error::unsupported("a JPEG with arithmetic coding")),
        _ => return Err(Error::unsupported("a hierarchical JPEG")),
    }
    let precision = *body.first().ok_or_else(short)?;
    if precision != 8 {
        return Err(Error::unsupported(format!("a JPEG of {precision} bits a sample")));
    }
    let (height, width) = (be16(body, 1).ok_or_else(short)?, be16(body, 3).ok_or_else(short)?);
    let components = *body.get(5).ok_or_else(short)?;
    if !matches!(components, 1 | 3 | 4) {
        return Err(Error::unsupported(format!("a JPEG of {components} components")));
    }
    let factors =
        |index: usize| slice(body, 6 + 3 * index, 3).map(|part| (u64::from(part[1] >> 4), u64::from(part[1] & 15)));
    let factors: Vec<_> = (0..usize::from(components)).map(factors).collect::<Option<_>>().ok_or_else(short)?;
    if factors.iter().any(|(across, down)| !(1..=4).contains(across) || !(1..=4).contains(down)) {
        return Err(Error::damaged("its sampling factors are out of range"));
    }
    let across = factors.iter().map(|factor| factor.0).max().unwrap_or(1);
    let down = factors.iter().map(|factor| factor.1).max().unwrap_or(1);
    let samples: u64 = factors.iter().map(|factor| factor.0 * factor.1).sum();
    Ok(Frame {
        width: u32::from(width),
        height: u32::from(height),
        components,
        samples_of_eight: (samples * 8).div_ceil(across * down),
        unit_rows: 8 * down,
        progressive: marker == 0xc2,
    })
}

/// The colour profile, which is spread over numbered segments.
#[derive(Default)]
struct ProfileParts<'a> {
    parts: Vec<(u8, &'a [u8])>,
    bytes: u64,
    of: u8,
}

impl<'a> ProfileParts<'a> {
    fn add(&mut self, body: &'a [u8], limits: &Limits) -> Result<(), Error> {
        let Some([number, of, part @ ..]) = body.strip_prefix(b"ICC_PROFILE\0") else { return Ok(()) };
        // No number is valid twice, so 256 parts are enough to know that a profile is broken.
        if self.parts.len() <= 256 {
            self.parts.push((*number, part));
        }
        self.bytes += part.len() as u64;
        self.of = *of;
        limits.check_profile(self.bytes)
    }

    /// The profile in order, and whether there was one that is not whole.
    fn finish(mut self) -> (Option<Vec<u8>>, bool) {
        if self.parts.is_empty() {
            return (None, false);
        }
        self.parts.sort_by_key(|part| part.0);
        let whole = self.parts.len() == usize::from(self.of)
            && self.parts.iter().enumerate().all(|(index, part)| usize::from(part.0) == index + 1);
        if !whole {
            return (None, true);
        }
        (Some(self.parts.iter().flat_map(|part| part.1).copied().collect()), false)
    }
}

/// A marker with what belongs to it.
pub(in crate::imaging) struct Segment<'a> {
    pub marker: u8,
    /// Without the two bytes of length.
    pub body: &'a [u8],
    /// Where the marker begins.
    pub start: usize,
    /// Where the body ends; the data of a scan, if any, follows.
    pub end: usize,
}

/// The markers of a file in turn, those inside and after the data of scans included, save for restart markers.
pub(in crate::imaging) struct Segments<'a> {
    source: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    pub(in crate::imaging) fn new(source: &'a [u8]) -> Self {
        Self { source, at: 2 }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        loop {
            // Between segments there should be nothing; after a scan's header there is its data. Either is passed over.
            let skipped = first_marker_byte(self.source.get(self.at..)?)?;
            let start = self.at + skipped;
            let marker = *self.source.get(start + 1)?;
            match marker {
                // Fill bytes, stuffed bytes, markers without a body.
                0xff => self.at = start + 1,
                0x00 | 0x01 | SOI | 0xd0..=0xd7 => self.at = start + 2,
                EOI => {
                    self.at = self.source.len();
                    return Some(Segment { marker, body: &[], start, end: start + 2 });
                }
                _ => {
                    let length = usize::from(be16(self.source, start + 2)?).max(2);
                    let body = slice(self.source, start + 4, length - 2)?;
                    self.at = start + 2 + length;
                    return Some(Segment { marker, body, start, end: self.at });
                }
            }
        }
    }
}

/// Where the first byte of 0xff is. Whole chunks without one are passed over: most of a file is data of scans.
fn first_marker_byte(bytes: &[u8]) -> Option<usize> {
    let has_none = |chunk: &&[u8; 32]| !chunk.iter().fold(false, |found, byte| found | (*byte == 0xff));
    let passed = 32 * bytes.as_chunks::<32>().0.iter().take_while(has_none).count();
    Some(passed + bytes[passed..].iter().position(|byte| *byte == 0xff)?)
}
