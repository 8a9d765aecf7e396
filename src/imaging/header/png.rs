//! Reads the chunks of a PNG.
//!
//! The decoder receives only pixel chunks: profiles, texts and animation frames are removed first, so none of them is
//! decompressed without a limit.

use std::borrow::Cow;
use std::io::Read;

use super::{Header, exif};
use crate::imaging::bytes::{be32, slice};
use crate::imaging::error::Error;
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

const SIGNATURE: usize = 8;

/// Reads the headers of a PNG.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let first = Chunks::new(source).next().filter(|chunk| &chunk.kind == b"IHDR" && chunk.body.len() == 13);
    let Some(ihdr) = first else { return Err(Error::damaged("its first chunk is not IHDR")) };
    let (Some(width), Some(height)) = (be32(ihdr.body, 0), be32(ihdr.body, 4)) else {
        return Err(Error::damaged("its IHDR is too short"));
    };
    limits.check_size(width, height)?;
    let (depth, color) = (ihdr.body[8], ihdr.body[9]);
    let mut header = Header::new(SourceFormat::Png, width, height, source.len());
    header.truncated = true;
    let mut transparent = color & 4 != 0;
    let mut pixels_begin = false;
    let mut whole = SIGNATURE;
    for chunk in Chunks::new(source) {
        whole = chunk.end;
        match &chunk.kind {
            b"iCCP" if !pixels_begin => read_profile(chunk.body, limits, &mut header)?,
            b"eXIf" => header.orientation = exif::orientation(chunk.body).unwrap_or(1),
            b"acTL" => header.animated = be32(chunk.body, 0).is_some_and(|frames| frames > 1),
            b"tRNS" => transparent = true,
            b"IDAT" => pixels_begin = true,
            b"IEND" => {
                header.truncated = false;
                header.end = chunk.end;
                break;
            }
            _ => {}
        }
    }
    if !pixels_begin && !is_cut_pixels(source, whole) {
        return Err(Error::damaged("it ends before its pixels"));
    }
    header.samples = match color {
        0 => 1,
        4 => 2,
        6 => 4,
        _ => 3,
    };
    header.channels = if transparent { 4 } else { 3 };
    // The decoder's output has the stored depth and samples; a second copy has eight bits and our channels.
    let stored = u64::from(if color == 3 || transparent { header.channels } else { header.samples });
    let decoded = stored * if depth == 16 { 2 } else { 1 };
    header.decode_bytes = header.pixels() * (decoded + u64::from(header.channels)) + header.end as u64;
    Ok(header)
}

/// Returns the file with only the chunks of the still image's pixels, unchanged.
pub(in crate::imaging) fn only_pixels(source: &[u8]) -> Cow<'_, [u8]> {
    let keeps = |kind: &[u8; 4]| matches!(kind, b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT" | b"IEND");
    if Chunks::new(source).all(|chunk| keeps(&chunk.kind)) {
        return Cow::Borrowed(source);
    }
    let mut kept = source[..SIGNATURE].to_vec();
    let mut read = SIGNATURE;
    for chunk in Chunks::new(source) {
        if keeps(&chunk.kind) {
            kept.extend_from_slice(&source[chunk.start..chunk.end]);
        }
        read = chunk.end;
        if &chunk.kind == b"IEND" {
            return Cow::Owned(kept);
        }
    }
    // Keep the pixel data of a chunk that the file's end truncates.
    if is_cut_pixels(source, read) {
        kept.extend_from_slice(&source[read..]);
    }
    Cow::Owned(kept)
}

/// Returns whether the incomplete chunk at `at` has pixel data.
fn is_cut_pixels(source: &[u8], at: usize) -> bool {
    source.get(at + 4..at + 8) == Some(b"IDAT")
}

/// Parses `name 0 method deflate…`; decompresses up to one byte more than the limit to detect an oversized profile.
fn read_profile(body: &[u8], limits: &Limits, header: &mut Header) -> Result<(), Error> {
    let packed = body.iter().take(80).position(|byte| *byte == 0).and_then(|name| body.get(name + 2..));
    let Some(packed) = packed else {
        header.profile_broken = true;
        return Ok(());
    };
    let mut profile = Vec::new();
    let outcome = flate2::read::ZlibDecoder::new(packed).take(limits.max_metadata + 1).read_to_end(&mut profile);
    limits.check_profile(profile.len() as u64)?;
    if outcome.is_ok() && header.profile.is_none() {
        header.profile = Some(profile);
    } else {
        header.profile_broken = true;
    }
    Ok(())
}

struct Chunk<'a> {
    kind: [u8; 4],
    body: &'a [u8],
    start: usize,
    end: usize,
}

/// Iterates over complete chunks, up to the first truncated one.
struct Chunks<'a> {
    source: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    fn new(source: &'a [u8]) -> Self {
        Self { source, at: SIGNATURE }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let start = self.at;
        let length = be32(self.source, start)? as usize;
        let kind = slice(self.source, start + 4, 4)?.try_into().ok()?;
        let body = slice(self.source, start + 8, length)?;
        let end = start + 12 + length;
        // The checksum must be complete too.
        slice(self.source, end - 4, 4)?;
        self.at = end;
        Some(Chunk { kind, body, start, end })
    }
}
