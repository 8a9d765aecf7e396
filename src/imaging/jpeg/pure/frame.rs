//! Parses the structure of a JPEG: components with sizes, scans with tables and data. It decodes nothing.

use std::rc::Rc;

use super::huffman::Table;
use super::tables::{Kind, Quantization, Tables, ZIGZAG};
use crate::imaging::bytes::{be16, slice};
use crate::imaging::error::Error;
use crate::imaging::header::jpeg::{Segments, is_adobe};
use crate::imaging::jpeg::scale::scaled;

/// Color space of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    Gray,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// A frame and its scans.
pub(super) struct Frame<'a> {
    pub progressive: bool,
    pub colors: Colors,
    /// Whether an Adobe marker says that inks are inverted.
    pub adobe: bool,
    /// Output width in pixels.
    pub width: usize,
    pub height: usize,
    /// Minimum coded units across and down in a scan of all components.
    pub units: (usize, usize),
    /// Output rows per row of units.
    pub unit_rows: usize,
    /// Output pixels per unit, across.
    unit_across: usize,
    pub components: Vec<Component>,
    pub scans: Vec<Scan<'a>>,
    /// Whether a segment or scan is invalid.
    pub damaged: bool,
}

/// One component of a frame.
pub(super) struct Component {
    id: u8,
    quantization_slot: u8,
    /// Blocks across and down per minimum coded unit.
    pub across: usize,
    pub down: usize,
    /// Blocks across and down with pixels; a scan of this component alone has only these.
    pub blocks: (usize, usize),
    /// Decoded samples per side of a block: 1, 2, 4 or 8.
    pub side: usize,
    /// Output samples across and down before upsampling.
    pub samples: (usize, usize),
    /// Quantization table at the first scan of the component.
    pub quantization: Option<Rc<Quantization>>,
}

/// A scan: one pass over the blocks of some components.
pub(super) struct Scan<'a> {
    pub parts: Vec<Part>,
    /// First and last coefficient, in zigzag order.
    pub first: u32,
    pub last: u32,
    /// Whether earlier scans delivered the upper bits.
    pub refines: bool,
    /// Lowest bit that this scan delivers.
    pub bit: u32,
    /// Units between restart markers, or 0.
    pub interval: u32,
    pub data: &'a [u8],
    /// Whether the scan must be decoded for the requested size.
    pub needed: bool,
}

/// A component of a scan.
pub(super) struct Part {
    pub component: usize,
    pub direct: Option<Rc<Table>>,
    pub alternating: Option<Rc<Table>>,
}

/// State between segments.
struct Reading<'a> {
    source: &'a [u8],
    tables: Tables<'a>,
    interval: u32,
    transform: Option<u8>,
    damaged: bool,
}

impl<'a> Frame<'a> {
    /// Parses all segments of `source`. Blocks will be decoded to `block` samples per side.
    ///
    /// # Errors
    /// [`Error::Undecodable`] if no frame with a scan exists.
    pub(super) fn read(source: &'a [u8], block: u32) -> Result<Self, Error> {
        let mut reading = Reading { source, tables: Tables::default(), interval: 0, transform: None, damaged: false };
        let mut frame: Option<Frame<'a>> = None;
        let mut segments = Segments::new(source).peekable();
        while let Some(segment) = segments.next() {
            let body = segment.body;
            match segment.marker {
                0xdb => reading.damaged |= !reading.tables.quantize(body),
                0xc4 => reading.damaged |= !reading.tables.describe(body),
                0xdd => reading.interval = be16(body, 0).map_or(0, u32::from),
                0xee if body.starts_with(b"Adobe") => reading.transform = Some(body.get(11).copied().unwrap_or(0)),
                0xc0..=0xc2 if frame.is_none() => frame = Some(Frame::of_header(segment.marker, body, block)?),
                0xda => {
                    let end = segments.peek().map_or(source.len(), |next| next.start);
                    let frame = frame.as_mut().ok_or_else(|| Error::damaged("its pixels come before its frame"))?;
                    reading.add_scan(frame, body, segment.end..end);
                }
                _ => {}
            }
        }
        let mut frame = frame.ok_or_else(|| Error::damaged("it has no frame"))?;
        frame.damaged = reading.damaged;
        frame.colors = frame.colors(reading.transform);
        frame.adobe = is_adobe(source);
        frame.find_needed();
        Ok(frame)
    }

    /// Parses a frame header (ITU-T T.81, B.2.2) whose values the header reader has checked.
    fn of_header(marker: u8, body: &[u8], block: u32) -> Result<Self, Error> {
        let short = || Error::damaged("its frame header is too short");
        let height = u32::from(be16(body, 1).ok_or_else(short)?);
        let width = u32::from(be16(body, 3).ok_or_else(short)?);
        let count = usize::from(*body.get(5).ok_or_else(short)?);
        let specified = slice(body, 6, 3 * count).ok_or_else(short)?;
        // A single component's sampling factors have no meaning (T.81, A.2.2).
        let factors = |part: &[u8]| {
            if count == 1 { (1, 1) } else { (u32::from(part[1] >> 4), u32::from(part[1] & 15)) }
        };
        let all = || specified.chunks_exact(3).map(factors);
        let most = all().fold((0, 0), |most, factor| (most.0.max(factor.0), most.1.max(factor.1)));
        if width == 0 || height == 0 || !matches!(count, 1..=4) || all().any(|factor| factor.0.min(factor.1) == 0) {
            return Err(Error::damaged("its frame header is invalid"));
        }
        let units = (width.div_ceil(8 * most.0) as usize, height.div_ceil(8 * most.1) as usize);
        let component = |part: &[u8]| {
            let factor = factors(part);
            let side = larger_side(block, factor, most);
            let samples = ((width * factor.0).div_ceil(most.0) as usize, (height * factor.1).div_ceil(most.1) as usize);
            let decoded = |pixels: u32, factor: u32, most: u32| {
                (u64::from(pixels) * u64::from(factor) * u64::from(side)).div_ceil(8 * u64::from(most)) as usize
            };
            Component {
                id: part[0],
                quantization_slot: part[2],
                across: factor.0 as usize,
                down: factor.1 as usize,
                blocks: (samples.0.div_ceil(8), samples.1.div_ceil(8)),
                side: side as usize,
                samples: (decoded(width, factor.0, most.0), decoded(height, factor.1, most.1)),
                quantization: None,
            }
        };
        Ok(Self {
            progressive: marker == 0xc2,
            colors: Colors::Gray,
            adobe: false,
            width: scaled(width, block) as usize,
            height: scaled(height, block) as usize,
            units,
            unit_rows: (most.1 * block) as usize,
            unit_across: (most.0 * block) as usize,
            components: specified.chunks_exact(3).map(component).collect(),
            scans: Vec::new(),
            damaged: false,
        })
    }

    /// Returns the output width of whole units.
    pub(super) fn unit_width(&self) -> usize {
        self.units.0 * self.unit_across
    }

    /// Returns the color space. Without an Adobe marker, component names identify untransformed RGB.
    fn colors(&self, transform: Option<u8>) -> Colors {
        match (&self.components[..], transform) {
            ([_, _, _], Some(0)) => Colors::Rgb,
            ([r, g, b], None) if [r.id, g.id, b.id] == *b"RGB" => Colors::Rgb,
            ([_, _, _], _) => Colors::YCbCr,
            ([_, _, _, _], Some(2)) => Colors::Ycck,
            ([_, _, _, _], _) => Colors::Cmyk,
            _ => Colors::Gray,
        }
    }

    /// Marks the scans that must be decoded. In a reduced progressive frame, a scan is unnecessary if it has no
    /// coefficient in use and no later needed scan depends on it.
    fn find_needed(&mut self) {
        if !self.progressive {
            return;
        }
        let mut used: Vec<u64> = self.components.iter().map(|component| corner(component.side)).collect();
        for scan in self.scans.iter_mut().rev() {
            let band = band(scan.first, scan.last);
            scan.needed = scan.parts.iter().any(|part| used[part.component] & band != 0);
            if scan.needed && scan.refines {
                scan.parts.iter().for_each(|part| used[part.component] |= band);
            }
        }
    }
}

impl Component {
    /// Returns the quantization factors in zigzag order; ones if the file has none.
    pub(super) fn factors(&self) -> [i32; 64] {
        self.quantization.as_deref().map_or([1; 64], |factors| factors.map(i32::from))
    }

    /// Returns the number of coefficients to store, in zigzag order.
    pub(super) fn kept(&self) -> usize {
        64 - corner(self.side).leading_zeros() as usize
    }
}

impl<'a> Reading<'a> {
    /// Parses a scan header (T.81, B.2.3); ignores an invalid one.
    fn add_scan(&mut self, frame: &mut Frame<'a>, body: &[u8], data: std::ops::Range<usize>) {
        let parts = self.parts(frame, body);
        let count = usize::from(body.first().copied().unwrap_or(0));
        let (Some(parts), Some(&[first, last, bits])) = (parts, slice(body, 1 + 2 * count, 3)) else {
            self.damaged = true;
            return;
        };
        let mut scan = Scan {
            first: 0,
            last: 63,
            refines: bits >> 4 != 0,
            bit: u32::from(bits & 15),
            parts,
            interval: self.interval,
            data: self.source.get(data).unwrap_or_default(),
            needed: true,
        };
        if frame.progressive {
            (scan.first, scan.last) = (u32::from(first), u32::from(last));
            let band_is_right =
                if first == 0 { last == 0 } else { first <= last && last < 64 && scan.parts.len() == 1 };
            if !band_is_right || scan.bit > 13 {
                self.damaged = true;
                return;
            }
        }
        let needs_direct = scan.first == 0 && !(frame.progressive && scan.refines);
        let lacks =
            |part: &Part| (needs_direct && part.direct.is_none()) || (scan.last > 0 && part.alternating.is_none());
        if scan.parts.iter().any(lacks) {
            self.damaged = true;
            return;
        }
        for part in &scan.parts {
            let component = &mut frame.components[part.component];
            if component.quantization.is_none() {
                component.quantization = self.tables.quantization(component.quantization_slot);
            }
        }
        frame.scans.push(scan);
    }

    fn parts(&mut self, frame: &Frame<'_>, body: &[u8]) -> Option<Vec<Part>> {
        let count = usize::from(*body.first()?);
        let mut parts = Vec::with_capacity(count.min(4));
        for named in slice(body, 1, 2 * count)?.chunks_exact(2) {
            let used = |index: &usize| parts.iter().any(|part: &Part| part.component == *index);
            let mut numbers = 0..frame.components.len();
            let component = numbers.find(|index| frame.components[*index].id == named[0] && !used(index))?;
            parts.push(Part {
                component,
                direct: self.tables.huffman(Kind::Direct, named[1] >> 4),
                alternating: self.tables.huffman(Kind::Alternating, named[1] & 15),
            });
        }
        (!parts.is_empty()).then_some(parts)
    }
}

/// Returns a larger block size for a subsampled component: larger decoded blocks replace upsampling where possible.
fn larger_side(block: u32, factor: (u32, u32), most: (u32, u32)) -> u32 {
    let fits = |side: u32| {
        (most.0 * block).is_multiple_of(factor.0 * side) && (most.1 * block).is_multiple_of(factor.1 * side)
    };
    let mut side = block;
    while side < 8 && fits(side * 2) {
        side *= 2;
    }
    side
}

/// Returns the coefficients, by zigzag index, of a block of `side` samples per side.
fn corner(side: usize) -> u64 {
    let inside = |place: u8| usize::from(place / 8) < side && usize::from(place % 8) < side;
    ZIGZAG.iter().enumerate().filter(|(_, place)| inside(**place)).fold(0, |set, (number, _)| set | 1 << number)
}

/// Returns the coefficients from `first` to `last`, both at most 63.
pub(super) fn band(first: u32, last: u32) -> u64 {
    u64::MAX << first & u64::MAX >> (63 - last)
}
