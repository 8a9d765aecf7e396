//! Reads the headers of a Windows or OS/2 bitmap: dimensions, pixel encoding, and offsets.

use super::Header;
use crate::imaging::bytes::{le16, le32, slice};
use crate::imaging::error::Error;
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

/// Offset of the second header; its first field is its length, which identifies the version.
const AT: usize = 14;
const CORE: usize = 12;
const INFO: usize = 40;
const WITH_ALPHA_MASK: usize = 56;
const OS2: usize = 64;
const V4: usize = 108;
const V5: usize = 124;

/// Encoding of the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::imaging) enum Coding {
    /// Palette indices of 1, 2, 4 or 8 bits.
    Indices(u8),
    /// Blue, green and red, one byte each.
    Bytes,
    /// Integers of two or four bytes, with masks for red, green, blue and alpha.
    Masked { bytes: usize, masks: [u32; 4] },
    /// Run-length encoded indices of 4 or 8 bits.
    IndexRuns(u8),
    /// Run-length encoded colors (OS/2).
    ColorRuns,
}

/// Everything that decoding needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::imaging) struct Layout {
    pub width: u32,
    pub height: u32,
    /// The first stored row is the top row.
    pub top_down: bool,
    pub coding: Coding,
    /// Offset of the palette, number of colors, and bytes per color.
    pub palette: (usize, usize, usize),
    /// Offset of the pixels.
    pub pixels_at: usize,
    /// A guess may have changed colors.
    pub guessed: bool,
}

/// Reads the headers of a bitmap.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let layout = layout(source, limits)?;
    let mut header = Header::new(SourceFormat::Bmp, layout.width, layout.height, source.len());
    let has_alpha = match layout.coding {
        Coding::Masked { masks, .. } => masks[3] != 0,
        Coding::IndexRuns(_) | Coding::ColorRuns => true,
        Coding::Indices(_) | Coding::Bytes => false,
    };
    if let Some(row) = layout.row_bytes() {
        header.truncated = layout.pixels_at as u64 + row as u64 * u64::from(layout.height) > source.len() as u64;
    }
    header.channels = if has_alpha { 4 } else { 3 };
    header.decode_bytes = header.pixels() * u64::from(header.channels);
    read_profile(source, limits, &mut header)?;
    Ok(header)
}

/// Returns the layout of the bitmap in `source`.
///
/// # Errors
/// Errors of the limits; [`Error::UnsupportedFormat`] for embedded files of other formats and Huffman codes;
/// [`Error::Undecodable`] for a truncated or invalid header.
pub(in crate::imaging) fn layout(source: &[u8], limits: &Limits) -> Result<Layout, Error> {
    let short = || Error::damaged("it ends within its header");
    let fields = Fields::of(source).ok_or_else(short)?;
    let height = fields.height.unsigned_abs();
    limits.check_size(fields.width, height)?;
    let (coding, guessed) = coding(source, &fields)?;
    // Short headers have no mask fields: masks follow the header, before the palette.
    let masks = match fields.compression {
        3 if fields.header == INFO => 12,
        6 if fields.header == INFO => 16,
        _ => 0,
    };
    let palette_at = AT + fields.header + masks;
    let entry = if fields.header == CORE { 3 } else { 4 };
    let colors = match coding {
        Coding::Indices(bits) | Coding::IndexRuns(bits) => colors(&fields, bits, palette_at, entry),
        _ => 0,
    };
    let after_palette = palette_at + colors * entry;
    // An offset inside the headers is invalid; the pixels then follow the palette.
    let pixels_at = if fields.pixels_at < palette_at { after_palette } else { fields.pixels_at };
    Ok(Layout {
        width: fields.width,
        height,
        top_down: fields.height < 0,
        coding,
        palette: (palette_at, colors, entry),
        pixels_at,
        guessed,
    })
}

impl Layout {
    /// Returns the bytes per row, padded to four; `None` for run-length encoding.
    pub(in crate::imaging) fn row_bytes(&self) -> Option<usize> {
        let bits = match self.coding {
            Coding::Indices(bits) => usize::from(bits),
            Coding::Bytes => 24,
            Coding::Masked { bytes, .. } => 8 * bytes,
            Coding::IndexRuns(_) | Coding::ColorRuns => return None,
        };
        Some((self.width as usize * bits).div_ceil(32) * 4)
    }
}

/// Header fields as stored; missing fields of a shorter header are zero.
struct Fields {
    header: usize,
    pixels_at: usize,
    width: u32,
    height: i32,
    bits: u16,
    compression: u32,
    colors: u32,
}

impl Fields {
    fn of(source: &[u8]) -> Option<Self> {
        let header = le32(source, AT)? as usize;
        let pixels_at = le32(source, 10)? as usize;
        if header < 16 {
            let (width, height) = (u32::from(le16(source, 18)?), i32::from(le16(source, 20)?));
            return Some(Self {
                header: CORE,
                pixels_at,
                width,
                height: height & 0xffff,
                bits: le16(source, 24)?,
                compression: 0,
                colors: 0,
            });
        }
        let within = |at: usize| if at + 4 <= header { le32(source, AT + at) } else { Some(0) };
        Some(Self {
            header,
            pixels_at,
            width: le32(source, 18)?,
            // A negative height means top-down rows; a negative width is invalid and fails the size check.
            height: le32(source, 22)? as i32,
            bits: le16(source, 28)?,
            compression: within(16)?,
            colors: within(32)?,
        })
    }
}

/// Returns the pixel encoding, and whether it was guessed.
fn coding(source: &[u8], fields: &Fields) -> Result<(Coding, bool), Error> {
    let coding = match (fields.compression, fields.bits) {
        // In OS/2 headers, 3 means Huffman codes and 4 means runs of colors.
        (3, _) if fields.header == OS2 => return Err(Error::unsupported("a bitmap with Huffman compression")),
        (4, 24) if fields.header == OS2 => Coding::ColorRuns,
        (4, _) => return Err(Error::unsupported("a bitmap that wraps a JPEG")),
        (5, _) => return Err(Error::unsupported("a bitmap that wraps a PNG")),
        (_, 64) => return Err(Error::unsupported("a bitmap with 64 bits per pixel")),
        (0, bits @ (1 | 2 | 4 | 8)) => Coding::Indices(bits as u8),
        (1, 8) => Coding::IndexRuns(8),
        (2, 4) => Coding::IndexRuns(4),
        (0 | 3 | 6, 24) => Coding::Bytes,
        (0 | 3 | 6, 16 | 32) => return masked(source, fields),
        (compression, bits) => {
            return Err(Error::damaged(format!("it has {bits} bits per pixel with compression {compression}")));
        }
    };
    Ok((coding, false))
}

fn masked(source: &[u8], fields: &Fields) -> Result<(Coding, bool), Error> {
    let short = || Error::damaged("it ends within its header");
    let mask = |index: usize| le32(source, AT + INFO + 4 * index).ok_or_else(short);
    let usual = if fields.bits == 16 { [0x7c00, 0x03e0, 0x001f] } else { [0x00ff_0000, 0xff00, 0xff] };
    let bytes = usize::from(fields.bits / 8);
    let mut colors = usual;
    if fields.compression != 0 {
        colors = [mask(0)?, mask(1)?, mask(2)?];
    }
    let has_alpha = fields.header >= WITH_ALPHA_MASK && fields.header != OS2 || fields.compression == 6;
    let alpha = if has_alpha { mask(3)? } else { 0 };
    let guessed = colors == [0; 3];
    let [red, green, blue] = if guessed { usual } else { colors };
    Ok((Coding::Masked { bytes, masks: [red, green, blue, alpha] }, guessed))
}

/// Returns the number of colors in the palette: as declared, limited by the index size and the pixel offset.
fn colors(fields: &Fields, bits: u8, at: usize, entry: usize) -> usize {
    let nameable = 1 << bits;
    let said = if fields.colors == 0 { nameable } else { (fields.colors as usize).min(nameable) };
    if fields.pixels_at > at { said.min((fields.pixels_at - at) / entry) } else { said }
}

/// Profile kinds of version 5: `MBED` and `LINK`; any other kind means no profile.
const EMBEDDED: u32 = 0x4d42_4544;
const LINKED: u32 = 0x4c49_4e4b;

fn read_profile(source: &[u8], limits: &Limits, header: &mut Header) -> Result<(), Error> {
    if le32(source, AT).is_none_or(|size| (size as usize) < V5) {
        return Ok(());
    }
    match le32(source, AT + 56) {
        Some(EMBEDDED) => {
            let at = le32(source, AT + V4 + 4).map_or(usize::MAX, |at| AT + at as usize);
            let bytes = le32(source, AT + V4 + 8).unwrap_or(0);
            limits.check_profile(u64::from(bytes))?;
            header.profile =
                slice(source, at, bytes as usize).filter(|profile| !profile.is_empty()).map(<[u8]>::to_vec);
            header.profile_broken = header.profile.is_none();
        }
        // The profile is in an external file.
        Some(LINKED) => header.profile_broken = true,
        _ => {}
    }
    Ok(())
}
