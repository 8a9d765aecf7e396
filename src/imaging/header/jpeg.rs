//! Reads the markers of a JPEG: frame, scans, profile, orientation and end.

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

/// Content of a frame header.
#[derive(Clone, Copy, Debug)]
struct Frame {
    width: u32,
    height: u32,
    components: u8,
    /// Samples of all components per eight pixels of the component with the most.
    samples_of_eight: u64,
    /// Pixel rows per row of minimum coded units.
    unit_rows: u64,
    progressive: bool,
}

/// Maximum bytes of one scan's tables.
const SCAN_BYTES: u64 = 48 << 10;

/// Reads all markers of a JPEG, including those between scans.
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
    // The output, one row of units with coefficients and upsampling rows, and the lists of scans.
    let row_bytes = u64::from(frame.width + 32) * (frame.unit_rows + 2) * frame.samples_of_eight / 8 * 4;
    header.decode_bytes = header.pixels() * 3 + row_bytes + u64::from(scans) * SCAN_BYTES;
    Ok(header)
}

/// Returns whether an Adobe marker exists; Adobe programs write inverted CMYK samples.
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
        return Err(Error::unsupported(format!("a JPEG with {precision} bits per sample")));
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

/// The color profile, split into numbered segments.
#[derive(Default)]
struct ProfileParts<'a> {
    parts: Vec<(u8, &'a [u8])>,
    bytes: u64,
    of: u8,
}

impl<'a> ProfileParts<'a> {
    fn add(&mut self, body: &'a [u8], limits: &Limits) -> Result<(), Error> {
        let Some([number, of, part @ ..]) = body.strip_prefix(b"ICC_PROFILE\0") else { return Ok(()) };
        // Numbers are unique, so 256 parts suffice to detect a broken profile.
        if self.parts.len() <= 256 {
            self.parts.push((*number, part));
        }
        self.bytes += part.len() as u64;
        self.of = *of;
        limits.check_profile(self.bytes)
    }

    /// Returns the joined profile, and whether an incomplete one existed.
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

/// A marker and its segment.
pub(in crate::imaging) struct Segment<'a> {
    pub marker: u8,
    /// Body without the two length bytes.
    pub body: &'a [u8],
    /// Offset of the marker.
    pub start: usize,
    /// End of the body; scan data may follow.
    pub end: usize,
}

/// Iterates over the markers of a file, including those within and after scan data, except restart markers.
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
            // Skips bytes between segments and scan data after a scan header.
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

/// Returns the offset of the first 0xff byte; skips whole chunks, because most of a file is scan data.
fn first_marker_byte(bytes: &[u8]) -> Option<usize> {
    let has_none = |chunk: &&[u8; 32]| !chunk.iter().fold(false, |found, byte| found | (*byte == 0xff));
    let passed = 32 * bytes.as_chunks::<32>().0.iter().take_while(has_none).count();
    Some(passed + bytes[passed..].iter().position(|byte| *byte == 0xff)?)
}
