//! Reads the blocks of a GIF: its screen, and whether it has more than one frame.

use super::Header;
use crate::imaging::bytes::{le16, slice};
use crate::imaging::error::Error;
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

const SCREEN: usize = 13;

/// Reads the headers of a GIF, up to its second frame.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let (Some(width), Some(height), Some(flags)) = (le16(source, 6), le16(source, 8), source.get(10)) else {
        return Err(Error::damaged("it ends within its header"));
    };
    let mut header = Header::new(SourceFormat::Gif, u32::from(width), u32::from(height), source.len());
    header.truncated = true;
    header.channels = 4;
    header.samples = 4;
    let mut frame_pixels = 0;
    let mut at = SCREEN + palette_bytes(*flags);
    let mut frames = 0;
    while let Some(block) = source.get(at) {
        match block {
            0x2c if frames == 1 => {
                header.animated = true;
                header.truncated = false;
                break;
            }
            0x2c => {
                frames += 1;
                let (Some(across), Some(down), Some(flags)) =
                    (le16(source, at + 5), le16(source, at + 7), source.get(at + 9))
                else {
                    break;
                };
                limits.check_size(u32::from(across).max(1), u32::from(down).max(1))?;
                frame_pixels = u64::from(across) * u64::from(down);
                at = after_blocks(source, at + 11 + palette_bytes(*flags));
            }
            0x21 => at = after_blocks(source, at + 2),
            0x3b => {
                header.truncated = false;
                header.end = at + 1;
                break;
            }
            _ => break,
        }
    }
    if frames == 0 {
        return Err(Error::damaged("it has no frame"));
    }
    // The frame is decoded separately and then copied to the screen, both with four samples per pixel.
    header.decode_bytes = (header.pixels() + frame_pixels) * 4;
    Ok(header)
}

/// Returns the bytes of the palette announced by flags: three for each of 2 to 256 colors.
pub(in crate::imaging) fn palette_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// Returns the end of the sub-blocks that begin at `at`.
pub(in crate::imaging) fn after_blocks(source: &[u8], mut at: usize) -> usize {
    while let Some([length]) = slice(source, at, 1) {
        at += 1 + usize::from(*length);
        if *length == 0 {
            break;
        }
    }
    at
}
