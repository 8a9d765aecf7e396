//! Reads the chunks of a WebP file: dimensions, flags, profile and orientation.

use super::{Header, exif};
use crate::imaging::bytes::{le16, le24, le32, slice};
use crate::imaging::error::Error;
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

const FIRST_CHUNK: usize = 12;

/// Reads the headers of a WebP file.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let claimed = le32(source, 4).unwrap_or(0) as usize;
    let end = claimed.saturating_add(8);
    let mut header = Header::new(SourceFormat::Webp, 0, 0, end.min(source.len()));
    header.truncated = end > source.len();
    let (mut lossless, mut alpha, mut frames) = (false, false, 0_u32);
    for chunk in Chunks::new(&source[..header.end]) {
        let size = match &chunk.kind {
            b"VP8X" => {
                alpha |= chunk.body.first().is_some_and(|flags| flags & 0x10 != 0);
                canvas(chunk.body)
            }
            b"VP8 " => lossy_size(chunk.body),
            b"VP8L" => {
                lossless = true;
                alpha |= le32(chunk.body, 1).is_some_and(|bits| bits & 0x1000_0000 != 0);
                lossless_size(chunk.body)
            }
            _ => None,
        };
        // The image chunk follows the canvas and must not exceed the checked size.
        if let Some((width, height)) = size {
            limits.check_size(width, height)?;
            if header.width == 0 {
                (header.width, header.height) = (width, height);
            }
        }
        match &chunk.kind {
            b"ANMF" => {
                frames += 1;
                limits.check_size(frame_side(chunk.body, 6), frame_side(chunk.body, 9))?;
            }
            b"ICCP" => {
                limits.check_profile(chunk.body.len() as u64)?;
                header.profile = Some(chunk.body.to_vec());
            }
            b"EXIF" => header.orientation = exif::orientation(chunk.body).unwrap_or(1),
            _ => {}
        }
    }
    if header.width == 0 {
        return Err(Error::damaged("it has no frame"));
    }
    header.animated = frames > 1;
    header.channels = if alpha || frames > 0 { 4 } else { 3 };
    header.samples = header.channels;
    // Lossless frames decode to four samples per pixel, and frames are copied to a canvas of four. For lossy images the
    // Rust decoder keeps planes of 1.5 samples twice, libwebp only a few rows.
    let working = match () {
        () if lossless || frames > 0 => 8,
        () if alpha => 3,
        () => 1,
    };
    header.decode_bytes = header.pixels() * (u64::from(header.channels) + working);
    Ok(header)
}

/// Returns width and height of the canvas in a `VP8X` chunk.
fn canvas(body: &[u8]) -> Option<(u32, u32)> {
    Some((le24(body, 4)? + 1, le24(body, 7)? + 1))
}

/// Returns the size of a lossy key frame: a 3-byte tag, a start code, two 14-bit sides.
fn lossy_size(body: &[u8]) -> Option<(u32, u32)> {
    if slice(body, 3, 3)? != b"\x9d\x01\x2a" {
        return None;
    }
    Some((u32::from(le16(body, 6)? & 0x3fff), u32::from(le16(body, 8)? & 0x3fff)))
}

/// Returns the size of a lossless frame: a signature byte, then two 14-bit sides minus one.
fn lossless_size(body: &[u8]) -> Option<(u32, u32)> {
    let bits = le32(body, 1).filter(|_| body.first() == Some(&0x2f))?;
    Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
}

/// Returns whether a file is one opaque lossy image without other image data.
pub(in crate::imaging) fn is_plain_lossy(source: &[u8]) -> bool {
    let mut lossy = false;
    for chunk in Chunks::new(source) {
        match &chunk.kind {
            b"ANMF" | b"ANIM" | b"ALPH" | b"VP8L" => return false,
            b"VP8X" if chunk.body.first().is_none_or(|flags| flags & 0x12 != 0) => return false,
            b"VP8 " => lossy = true,
            _ => {}
        }
    }
    lossy
}

fn frame_side(body: &[u8], at: usize) -> u32 {
    le24(body, at).unwrap_or(0) + 1
}

pub(in crate::imaging) struct Chunk<'a> {
    pub kind: [u8; 4],
    pub body: &'a [u8],
}

/// Iterates over the chunks of a file; the last may be truncated.
pub(in crate::imaging) struct Chunks<'a> {
    source: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    pub(in crate::imaging) fn new(source: &'a [u8]) -> Self {
        Self { source, at: FIRST_CHUNK }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let kind = slice(self.source, self.at, 4)?.try_into().ok()?;
        let length = le32(self.source, self.at + 4)? as usize;
        let start = self.at + 8;
        let body = &self.source[start..start.saturating_add(length).min(self.source.len())];
        self.at = start.saturating_add(length).saturating_add(length & 1);
        Some(Chunk { kind, body })
    }
}
