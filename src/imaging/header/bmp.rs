//! The header of a Windows bitmap: its dimensions, and whether the pixels are all there.

use super::Header;
use crate::imaging::bytes::{le16, le32};
use crate::imaging::error::Error;
use crate::imaging::limits::Limits;
use crate::imaging::sniff::SourceFormat;

const CORE_HEADER: u32 = 12;

/// Reads the headers of a bitmap.
pub(in crate::imaging) fn read(source: &[u8], limits: &Limits) -> Result<Header, Error> {
    let short = Error::damaged("it ends within its header");
    let Some((width, height, bits, compression)) = fields(source) else { return Err(short) };
    limits.check_size(width, height)?;
    let mut header = Header::new(SourceFormat::Bmp, width, height, source.len());
    if compression == 0 {
        // Rows without compression are padded to four bytes, so their length is known.
        let row = (u64::from(width) * u64::from(bits)).div_ceil(32) * 4;
        let pixels_at = le32(source, 10).unwrap_or(0);
        header.truncated = u64::from(pixels_at) + row * u64::from(height) > source.len() as u64;
    }
    header.channels = 4;
    header.decode_bytes = header.pixels() * 8;
    Ok(header)
}

fn fields(source: &[u8]) -> Option<(u32, u32, u16, u32)> {
    if le32(source, 14)? == CORE_HEADER {
        return Some((u32::from(le16(source, 18)?), u32::from(le16(source, 20)?), le16(source, 24)?, 0));
    }
    // Negative heights mean rows from the top; negative widths mean nothing and fail as far too large.
    let height = (le32(source, 22)? as i32).unsigned_abs();
    Some((le32(source, 18)?, height, le16(source, 28)?, le32(source, 30)?))
}
