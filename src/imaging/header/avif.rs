//! Reads the AVIF container (AV1 Image File Format 1.1): its coded images, colors and orientation.
//!
//! Of a sequence, the primary image is read. A clean aperture is ignored: the whole image is shown.

use super::Header;
use super::boxes::{Numbers, find};
use super::items::{Items, Pieces};
use crate::imaging::bytes::be32;
use crate::imaging::error::{Error, Excess};
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

/// Maximum frames in the data of one still image; layered images have a few.
const MAX_FRAMES: u32 = 8;

/// A grid of coded images of equal size.
pub(in crate::imaging) struct Mosaic<'a> {
    pub columns: u32,
    pub tiles: Vec<Pieces<'a>>,
    /// Width and height of each tile, in pixels.
    pub tile: (u32, u32),
}

/// Color coding (ITU-T H.273).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::imaging) struct Coding {
    pub primaries: u16,
    pub transfer: u16,
    pub matrix: u16,
    pub full_range: bool,
}

/// Describes what to decode.
pub(in crate::imaging) struct Layout<'a> {
    pub width: u32,
    pub height: u32,
    pub color: Mosaic<'a>,
    pub alpha: Option<Mosaic<'a>>,
    /// Colors are premultiplied by alpha.
    pub multiplied: bool,
    /// Color coding of the container; `None` to use the coded image's.
    pub coding: Option<Coding>,
    profile: Option<&'a [u8]>,
    orientation: u8,
    /// Bytes per decoded sample, and samples per pixel in sixths.
    sample_bytes: u64,
    sixths: u64,
}

/// Reads the container of an AVIF image.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let layout = layout(source, limits)?;
    let mut header = Header::new(SourceFormat::Avif, layout.width, layout.height, source.len());
    header.orientation = layout.orientation;
    header.animated = find(source, b"moov").is_some();
    let mosaics = [Some(&layout.color), layout.alpha.as_ref()];
    header.truncated = mosaics.into_iter().flatten().flat_map(|mosaic| &mosaic.tiles).any(|tile| !tile.whole);
    header.channels = if layout.alpha.is_some() { 4 } else { 3 };
    header.samples = header.channels;
    limits.check_profile(layout.profile.map_or(0, |profile| profile.len() as u64))?;
    header.profile = layout.profile.map(<[u8]>::to_vec);
    if let (None, Some(coding)) = (&header.profile, layout.coding) {
        (header.profile, header.profile_broken) = coding.profile();
    }
    let (across, down) = layout.color.tile;
    let tile_pixels = u64::from(across.next_multiple_of(128)) * u64::from(down.next_multiple_of(128));
    // The decoded image, a second one in decoding order, block metadata, and tables.
    let decoder = tile_pixels * layout.sample_bytes * layout.sixths / 6 * 2 + tile_pixels * 2 + DECODER_TABLES;
    let data = mosaics.into_iter().flatten().flat_map(|mosaic| &mosaic.tiles).map(Pieces::len).max().unwrap_or(0);
    header.decode_bytes = header.pixels() * u64::from(header.channels) + decoder + data as u64;
    Ok(header)
}

const DECODER_TABLES: u64 = 12 << 20;

impl Coding {
    /// Returns an ICC profile for colors other than sRGB, and whether it is missing. BT.709 and BT.601 are shown
    /// unchanged; high dynamic range is shown as standard range.
    fn profile(self) -> (Option<Vec<u8>>, bool) {
        let is_known_curve = matches!(self.transfer, 1 | 2 | 6 | 13 | 14 | 15);
        let is_known_matrix = matches!(self.matrix, 0 | 1 | 2 | 5 | 6 | 9);
        let profile = match self.primaries {
            _ if !is_known_curve || !is_known_matrix => return (None, true),
            1 | 2 | 5 | 6 => return (None, false),
            9 => moxcms::ColorProfile::new_bt2020(),
            12 => moxcms::ColorProfile::new_display_p3(),
            _ => return (None, true),
        };
        let encoded = profile.encode().ok();
        let is_missing = encoded.is_none();
        (encoded, is_missing)
    }
}

/// Returns the layout of the image in `source`.
///
/// # Errors
/// Errors of the limits; [`Error::UnsupportedFormat`] if it is not coded with AV1; [`Error::Undecodable`] if the
/// container is truncated or inconsistent.
pub(in crate::imaging) fn layout<'a>(source: &'a [u8], limits: &Limits) -> Result<Layout<'a>, Error> {
    let missing = || Error::damaged("its container lacks a required box");
    let Some(items) = Items::of(source) else {
        let is_sequence = find(source, b"moov").is_some();
        return Err(if is_sequence { Error::unsupported("an AVIF sequence without a still image") } else { missing() });
    };
    let primary = items.primary().ok_or_else(missing)?;
    let properties = items.properties(primary);
    let property = |kind: &[u8; 4]| properties.iter().find(|(found, _)| found == kind).map(|(_, body)| *body);
    let (width, height) = property(b"ispe").and_then(size).ok_or_else(missing)?;
    limits.check_size(width, height)?;
    let color = mosaic(&items, primary, (width, height), limits)?;
    let alpha_item = items.referring(primary, b"auxl").into_iter().find(|item| is_alpha(&items, *item));
    let alpha = alpha_item.map(|item| mosaic(&items, item, (width, height), limits)).transpose()?;
    let colors = |kind: &[u8; 4]| {
        let bodies = properties.iter().filter(|(found, _)| found == b"colr");
        bodies.filter_map(|(_, body)| body.strip_prefix(kind)).next()
    };
    // All tiles have the same configuration.
    let configured = property(b"av1C").map(<[u8]>::to_vec).or_else(|| {
        let tile = *items.references(primary, b"dimg").first()?;
        items.properties(tile).iter().find(|(kind, _)| kind == b"av1C").map(|(_, body)| body.to_vec())
    });
    let flags = configured.and_then(|body| body.get(2).copied()).ok_or_else(missing)?;
    Ok(Layout {
        width,
        height,
        color,
        multiplied: alpha_item.is_some_and(|item| items.references(primary, b"prem").contains(&item)),
        alpha,
        coding: colors(b"nclx").and_then(coding),
        profile: colors(b"prof").or_else(|| colors(b"rICC")),
        orientation: orientation(&properties),
        sample_bytes: if flags & 0x40 == 0 { 1 } else { 2 },
        sixths: match (flags & 0x10 != 0, flags & 8 != 0, flags & 4 != 0) {
            (true, _, _) => 6,
            (_, true, true) => 9,
            (_, true, false) => 12,
            _ => 18,
        },
    })
}

fn size(body: &[u8]) -> Option<(u32, u32)> {
    Some((be32(body, 4)?, be32(body, 8)?))
}

fn coding(body: &[u8]) -> Option<Coding> {
    let mut numbers = Numbers { bytes: body, at: 0 };
    let [primaries, transfer, matrix] = [numbers.next(2)?, numbers.next(2)?, numbers.next(2)?].map(|code| code as u16);
    Some(Coding { primaries, transfer, matrix, full_range: numbers.next(1)? & 0x80 != 0 })
}

fn is_alpha(items: &Items<'_>, item: u32) -> bool {
    const NAMES: [&[u8]; 2] = [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0"];
    let properties = items.properties(item);
    let mut names = properties.iter().filter(|(kind, _)| kind == b"auxC").filter_map(|(_, body)| body.get(4..));
    names.any(|name| NAMES.iter().any(|known| name.starts_with(known)))
}

/// Returns the coded images of `item`, which has the size `whole`.
fn mosaic<'a>(items: &Items<'a>, item: u32, whole: (u32, u32), limits: &Limits) -> Result<Mosaic<'a>, Error> {
    let missing = || Error::damaged("its container lacks a required box");
    match items.kind(item).as_ref() {
        Some(b"av01") => {
            let data = coded(items, item)?;
            Ok(Mosaic { columns: 1, tiles: vec![data], tile: whole })
        }
        Some(b"grid") => {
            let body = items.data(item)?.join();
            let [rows, columns] =
                [body.get(2), body.get(3)].map(|count| count.map_or(0, |count| u32::from(*count) + 1));
            let numbers = items.references(item, b"dimg");
            if rows == 0 || columns == 0 || numbers.len() as u32 != rows * columns {
                return Err(Error::damaged("its number of tiles is wrong"));
            }
            let properties = items.properties(numbers[0]);
            let first = properties.iter().find(|(kind, _)| kind == b"ispe").and_then(|(_, body)| size(body));
            let tile = first.ok_or_else(missing)?;
            limits.check_size(tile.0, tile.1)?;
            let padded = u64::from(tile.0) * u64::from(tile.1) * u64::from(rows * columns);
            let limit = 2 * limits.max_pixels;
            if padded > limit {
                return Err(Error::TooComplex(Excess::Tiles { padded, limit }));
            }
            if tile.0 * columns < whole.0 || tile.1 * rows < whole.1 {
                return Err(Error::damaged("its tiles do not cover it"));
            }
            let tiles = numbers.into_iter().map(|tile| coded(items, tile)).collect::<Result<_, _>>()?;
            Ok(Mosaic { columns, tiles, tile })
        }
        Some(b"iovl" | b"iden") => Err(Error::unsupported("an AVIF image derived from other items")),
        Some(b"hvc1") => Err(Error::unsupported("a HEIC image")),
        Some(b"avc1" | b"j2k1" | b"jpeg" | b"unci" | b"vvc1") => {
            Err(Error::unsupported("a HEIF image that is not coded with AV1"))
        }
        _ => Err(missing()),
    }
}

/// Returns the data of a coded image; fails if it has too many frames.
fn coded<'a>(items: &Items<'a>, item: u32) -> Result<Pieces<'a>, Error> {
    if items.kind(item).as_ref() != Some(b"av01") {
        return Err(Error::unsupported("an AVIF image derived from other items"));
    }
    let data = items.data(item)?;
    let found = match data.pieces[..] {
        [piece] => frames(piece),
        _ => frames(&data.join()),
    };
    if found > MAX_FRAMES {
        return Err(Error::TooComplex(Excess::Frames { found, limit: MAX_FRAMES }));
    }
    Ok(data)
}

/// Counts frames in a sequence of open bitstream units (AV1 specification, section 5.3).
fn frames(mut data: &[u8]) -> u32 {
    let mut found = 0_u32;
    while let [header, rest @ ..] = data {
        let kind = header >> 3 & 15;
        found = found.saturating_add(u32::from(matches!(kind, 3 | 6)));
        let rest = if header & 4 != 0 { rest.get(1..).unwrap_or_default() } else { rest };
        if header & 2 == 0 {
            break;
        }
        let Some((length, used)) = variable_length(rest) else { break };
        let Some(next) = rest.get(used..).and_then(|rest| rest.get(length..)) else { break };
        data = next;
    }
    found
}

/// Reads a LEB128 integer; returns it with its length.
fn variable_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

/// Returns the EXIF orientation for the properties: first quarter turns counterclockwise, then a flip.
fn orientation(properties: &[([u8; 4], &[u8])]) -> u8 {
    let value =
        |kind: &[u8; 4]| properties.iter().find(|(found, _)| found == kind).and_then(|(_, body)| body.first()).copied();
    let turns = value(b"irot").map_or(0, |turns| turns & 3);
    match (turns, value(b"imir").map(|axis| axis & 1)) {
        (0, None) => 1,
        (1, None) => 8,
        (2, None) => 3,
        (_, None) => 6,
        // 1 swaps left and right, 0 top and bottom; a half turn converts one into the other.
        (0, Some(1)) | (2, Some(0)) => 2,
        (0, Some(_)) | (2, Some(_)) => 4,
        (1, Some(0)) | (3, Some(1)) => 5,
        _ => 7,
    }
}
