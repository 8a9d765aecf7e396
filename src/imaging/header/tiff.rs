//! Reads the first directory of a TIFF file: how its pixels are stored, and the cost of decoding. Further pages and
//! BigTIFF are not supported.

use super::Header;
use super::directory::Directory;
use crate::imaging::error::{Error, Excess};
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const ORIENTATION: u16 = 274;
const SAMPLES: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_BYTES: u16 = 279;
const PLANAR: u16 = 284;
const PREDICTOR: u16 = 317;
pub(in crate::imaging) const PALETTE: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const JPEG_TABLES: u16 = 347;
pub(in crate::imaging) const LUMA: u16 = 529;
const SUBSAMPLING: u16 = 530;
pub(in crate::imaging) const REFERENCE: u16 = 532;
const PROFILE: u16 = 34_675;

/// Maximum samples per pixel; more are measurements, not images.
const MAX_SAMPLES: u32 = 8;

/// Compression of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::imaging) enum Packing {
    None,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

/// Color space of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::imaging) enum Meaning {
    Gray {
        white_is_zero: bool,
    },
    Color,
    Palette,
    Inks,
    /// Luma and two chroma samples; chroma is shared by blocks of this many pixels.
    Chroma {
        across: usize,
        down: usize,
    },
}

/// Number format of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::imaging) enum Number {
    Whole,
    Float,
}

/// Meaning of the sample after the color samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::imaging) enum Alpha {
    None,
    Plain,
    /// Colors are premultiplied by it.
    Multiplied,
}

/// Everything that decoding needs.
pub(in crate::imaging) struct Layout<'a> {
    pub directory: Directory<'a>,
    pub width: u32,
    pub height: u32,
    /// Bits per sample.
    pub bits: usize,
    pub samples: usize,
    pub number: Number,
    pub packing: Packing,
    pub meaning: Meaning,
    pub alpha: Alpha,
    /// 1 none, 2 horizontal differences, 3 floating-point differences.
    pub predictor: u32,
    /// Each sample has separate chunks (planar).
    pub planes: bool,
    /// The lowest bit of each byte comes first.
    pub reversed: bool,
    /// Width and height of a strip or tile, in pixels.
    pub chunk: (u32, u32),
    /// Chunks are tiles, which always have full size; the last strip may be shorter.
    pub tiled: bool,
    pub jpeg_tables: Option<&'a [u8]>,
    pub has_profile: bool,
}

/// Reads the first directory of a TIFF file.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let layout = layout(source, limits)?;
    let mut header = Header::new(SourceFormat::Tiff, layout.width, layout.height, source.len());
    header.channels = if layout.alpha != Alpha::None || layout.meaning == Meaning::Inks { 4 } else { 3 };
    header.samples = match layout.meaning {
        Meaning::Gray { .. } => 1,
        Meaning::Inks => 4,
        _ => header.channels,
    };
    header.cmyk = layout.meaning == Meaning::Inks;
    let orientation = layout.directory.number(ORIENTATION, 0).filter(|value| (1..=8).contains(value));
    header.orientation = orientation.unwrap_or(1) as u8;
    limits.check_profile(layout.directory.count(PROFILE) as u64)?;
    header.profile = layout.directory.bytes(PROFILE).map(<[u8]>::to_vec);
    header.decode_bytes = header.pixels() * u64::from(header.channels) + layout.chunk_cost();
    limits.check_cost(header.decode_bytes)?;
    Ok(header)
}

/// Returns the layout of the first image in `source`.
///
/// # Errors
/// Errors of the limits; [`Error::UnsupportedFormat`] for unsupported samples, colors and compressions.
pub(in crate::imaging) fn layout<'a>(source: &'a [u8], limits: &Limits) -> Result<Layout<'a>, Error> {
    let directory = Directory::open(source)?;
    let need = |tag: u16| directory.number(tag, 0).ok_or_else(|| Error::damaged("its directory lacks a required tag"));
    let or = |tag: u16, default: u32| directory.number(tag, 0).unwrap_or(default);
    let (width, height) = (need(WIDTH)?, need(HEIGHT)?);
    limits.check_size(width, height)?;
    let (bits, samples) = (or(BITS, 1), or(SAMPLES, 1));
    if !(1..=MAX_SAMPLES).contains(&samples) {
        return Err(Error::unsupported(format!("a TIFF with {samples} samples per pixel")));
    }
    if (1..directory.count(BITS).min(samples as usize)).any(|index| directory.number(BITS, index) != Some(bits)) {
        return Err(Error::unsupported("a TIFF whose samples differ in size"));
    }
    let number = number(or(SAMPLE_FORMAT, 1), bits)?;
    let packing = packing(or(COMPRESSION, 1))?;
    let meaning = meaning(&directory, need(PHOTOMETRIC)?, bits)?;
    let needed = match meaning {
        Meaning::Gray { .. } | Meaning::Palette => 1,
        Meaning::Color | Meaning::Chroma { .. } => 3,
        Meaning::Inks => 4,
    };
    if samples < needed {
        return Err(Error::damaged("its pixels have too few samples"));
    }
    let alpha = alpha(&directory, meaning, samples - needed);
    let tiled = directory.count(TILE_OFFSETS) > 0;
    let chunk =
        if tiled { (need(TILE_WIDTH)?, need(TILE_HEIGHT)?) } else { (width, or(ROWS_PER_STRIP, height).min(height)) };
    let layout = Layout {
        width,
        height,
        bits: bits as usize,
        samples: samples as usize,
        number,
        packing,
        meaning,
        alpha,
        predictor: if matches!(packing, Packing::Lzw | Packing::Deflate) { or(PREDICTOR, 1) } else { 1 },
        planes: or(PLANAR, 1) == 2 && samples > 1,
        reversed: or(FILL_ORDER, 1) == 2,
        chunk,
        tiled,
        jpeg_tables: directory.bytes(JPEG_TABLES),
        has_profile: directory.count(PROFILE) > 0,
        directory,
    };
    layout.check(limits)?;
    Ok(layout)
}

impl Layout<'_> {
    /// Returns the number of chunks across and down.
    pub(in crate::imaging) fn chunks(&self) -> (u32, u32) {
        (self.width.div_ceil(self.chunk.0), self.height.div_ceil(self.chunk.1))
    }

    /// Returns offset and length of chunk `index`; the length is `usize::MAX` if unknown.
    pub(in crate::imaging) fn place(&self, index: usize) -> Option<(usize, usize)> {
        let (offsets, bytes) = if self.tiled { (TILE_OFFSETS, TILE_BYTES) } else { (STRIP_OFFSETS, STRIP_BYTES) };
        let at = self.directory.number(offsets, index)? as usize;
        let length = self.directory.number(bytes, index).map_or(usize::MAX, |length| length as usize);
        Some((at, length))
    }

    /// Returns the decompressed bytes per row of one plane of a chunk.
    pub(in crate::imaging) fn row_bytes(&self) -> usize {
        let samples = if self.planes { 1 } else { self.samples };
        (self.chunk.0 as usize * samples * self.bits).div_ceil(8)
    }

    /// Returns the memory of one chunk: decompressed, as eight-bit samples, and a JPEG's coefficients.
    fn chunk_cost(&self) -> u64 {
        let pixels = u64::from(self.chunk.0) * u64::from(self.chunk.1);
        let unpacked = self.row_bytes() as u64 * u64::from(self.chunk.1);
        match self.packing {
            Packing::Jpeg => pixels * 12,
            _ => unpacked + pixels * self.samples as u64,
        }
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        if self.chunk.0 == 0 || self.chunk.1 == 0 {
            return Err(Error::damaged("its strips or tiles have no size"));
        }
        // Tiles may exceed the image, but then most decompressed data is wasted.
        let (across, down) = self.chunks();
        let padded = [self.chunk.0, self.chunk.1, across, down].into_iter().map(u64::from);
        let padded = padded.fold(1_u64, u64::saturating_mul);
        let limit = 2 * limits.max_pixels;
        if padded > limit {
            return Err(Error::TooComplex(Excess::Tiles { padded, limit }));
        }
        let is_jpeg = self.packing == Packing::Jpeg;
        let unsupported = match (self.meaning, self.predictor) {
            (Meaning::Chroma { across, down }, _) if !is_jpeg && self.planes && (across, down) != (1, 1) => {
                Some("a TIFF with subsampled chroma planes")
            }
            (Meaning::Chroma { .. }, _) if !is_jpeg && self.bits != 8 => {
                Some("a TIFF with chroma that does not have 8 bits")
            }
            (_, _) if is_jpeg && self.planes => Some("a TIFF with a JPEG for each plane"),
            (_, _) if is_jpeg && self.alpha != Alpha::None => Some("a TIFF with alpha inside a JPEG"),
            (_, 2) if !matches!(self.bits, 8 | 16 | 32) => Some("a TIFF with a predictor for odd sample sizes"),
            (_, 3) if self.number != Number::Float => Some("a TIFF with a floating-point predictor for integers"),
            (_, 1..=3) => None,
            _ => Some("a TIFF with an unknown predictor"),
        };
        unsupported.map_or(Ok(()), |kind| Err(Error::unsupported(kind)))
    }
}

fn number(format: u32, bits: u32) -> Result<Number, Error> {
    match (format, bits) {
        // 4 is "undefined", which readers treat as unsigned integers.
        (1 | 4, 1..=16 | 32) => Ok(Number::Whole),
        (3, 16 | 32 | 64) => Ok(Number::Float),
        (2, _) => Err(Error::unsupported("a TIFF with signed samples")),
        (5 | 6, _) => Err(Error::unsupported("a TIFF with complex numbers")),
        _ => Err(Error::unsupported(format!("a TIFF with {bits} bits per sample"))),
    }
}

fn packing(compression: u32) -> Result<Packing, Error> {
    let name = match compression {
        1 => return Ok(Packing::None),
        4 => return Ok(Packing::Group4),
        5 => return Ok(Packing::Lzw),
        7 => return Ok(Packing::Jpeg),
        8 | 32_946 => return Ok(Packing::Deflate),
        32_773 => return Ok(Packing::PackBits),
        2 | 3 => "CCITT Group 3",
        6 => "old-style JPEG",
        32_809 => "ThunderScan",
        32_909 => "PixarLog",
        33_003 | 33_005 | 34_712 => "JPEG 2000",
        34_661 => "JBIG",
        34_887 => "LERC",
        34_925 => "LZMA",
        50_000 => "Zstandard",
        50_001 => "WebP",
        50_002 | 52_546 => "JPEG XL",
        other => return Err(Error::unsupported(format!("a TIFF with compression {other}"))),
    };
    Err(Error::unsupported(format!("a TIFF with {name} compression")))
}

fn meaning(directory: &Directory<'_>, photometric: u32, bits: u32) -> Result<Meaning, Error> {
    let name = match photometric {
        0 => return Ok(Meaning::Gray { white_is_zero: true }),
        1 => return Ok(Meaning::Gray { white_is_zero: false }),
        2 => return Ok(Meaning::Color),
        3 if bits <= 8 => return Ok(Meaning::Palette),
        3 => "a palette of more than 256 colors",
        5 => return Ok(Meaning::Inks),
        6 => {
            let side = |index| directory.number(SUBSAMPLING, index).unwrap_or(2);
            let (across, down) = (side(0), side(1));
            if ![1, 2, 4].contains(&across) || ![1, 2, 4].contains(&down) {
                return Err(Error::damaged("its chroma subsampling is unknown"));
            }
            return Ok(Meaning::Chroma { across: across as usize, down: down as usize });
        }
        4 => "a transparency mask",
        8..=10 => "CIE Lab colors",
        32_803 | 34_892 => "camera raw data",
        32_844 | 32_845 => "LogLuv colors",
        other => return Err(Error::unsupported(format!("a TIFF with photometric interpretation {other}"))),
    };
    Err(Error::unsupported(format!("a TIFF with {name}")))
}

/// Returns the meaning of the extra samples. If undeclared, a fourth sample of a color image is alpha.
fn alpha(directory: &Directory<'_>, meaning: Meaning, extra: u32) -> Alpha {
    let can_have = matches!(meaning, Meaning::Gray { .. } | Meaning::Color);
    match directory.number(EXTRA_SAMPLES, 0) {
        _ if extra == 0 || !can_have => Alpha::None,
        Some(1) => Alpha::Multiplied,
        Some(2) => Alpha::Plain,
        None if meaning == Meaning::Color => Alpha::Plain,
        _ => Alpha::None,
    }
}
