//! Decodes one strip or tile to samples, or a JPEG chunk to colors.

use super::predict::{add_neighbors, join_floats};
use super::samples::Narrowing;
use super::unpack::unpack;
use crate::imaging::error::Error;
use crate::imaging::header::jpeg as jpeg_header;
use crate::imaging::header::tiff::{Layout, Meaning, Packing};
use crate::imaging::jpeg;
use crate::imaging::limits::Limits;
use crate::imaging::pixels::Pixels;

/// Reads one plane of a chunk of `rows` rows from `packed` into `samples`, `step` apart; returns the number of pixels
/// that exist, row by row.
pub(super) fn read_plane(
    packed: &[u8],
    layout: &Layout<'_>,
    narrowing: &Narrowing,
    rows: usize,
    samples: &mut [u8],
    buffer: &mut Vec<u8>,
) -> usize {
    let width = layout.chunk.0 as usize;
    if let Some((across, down)) = small_chroma(layout) {
        return read_blocks(packed, layout, (across, down), rows, samples, buffer);
    }
    let row_bytes = layout.row_bytes();
    let turned: Vec<u8>;
    let turns = layout.reversed && !matches!(layout.packing, Packing::Deflate | Packing::Jpeg);
    let packed = if turns {
        turned = packed.iter().map(|byte| byte.reverse_bits()).collect();
        &turned
    } else {
        packed
    };
    buffer.clear();
    buffer.resize(row_bytes * rows, 0);
    let length = unpack(layout.packing, packed, layout.chunk.0, buffer);
    let (step, apart) = if layout.planes { (layout.samples, 1) } else { (1, layout.samples) };
    match layout.predictor {
        2 => add_neighbors(buffer, row_bytes, layout.bits, apart, layout.directory.big_endian),
        3 => join_floats(buffer, row_bytes, layout.bits, apart),
        _ => {}
    }
    let targets = samples.chunks_mut(width * layout.samples);
    for (row, target) in buffer[..length].chunks(row_bytes).zip(targets) {
        narrowing.narrow(row, target, step);
    }
    length / row_bytes * width + (length % row_bytes * 8 / (layout.bits * apart)).min(width)
}

/// Returns the block size of subsampled chroma, if any.
fn small_chroma(layout: &Layout<'_>) -> Option<(usize, usize)> {
    match layout.meaning {
        Meaning::Chroma { across, down } if (across, down) != (1, 1) && layout.packing != Packing::Jpeg => {
            Some((across, down))
        }
        _ => None,
    }
}

/// Reads blocks of luma samples, each followed by its two chroma samples (TIFF 6.0, section 21).
fn read_blocks(
    packed: &[u8],
    layout: &Layout<'_>,
    (across, down): (usize, usize),
    rows: usize,
    samples: &mut [u8],
    buffer: &mut Vec<u8>,
) -> usize {
    let width = layout.chunk.0 as usize;
    let lumas = across * down;
    let row_bytes = width.div_ceil(across) * (lumas + 2);
    buffer.clear();
    buffer.resize(row_bytes * rows.div_ceil(down), 0);
    let length = unpack(layout.packing, packed, layout.chunk.0, buffer);
    if layout.predictor == 2 {
        add_neighbors(buffer, row_bytes, 8, lumas + 2, false);
    }
    for y in 0..rows.min(length / row_bytes * down) {
        let blocks = &buffer[y / down * row_bytes..][..row_bytes];
        for x in 0..width {
            let block = &blocks[x / across * (lumas + 2)..][..lumas + 2];
            let luma = block[y % down * across + x % across];
            let at = (y * width + x) * layout.samples;
            samples[at..at + 3].copy_from_slice(&[luma, block[lumas], block[lumas + 1]]);
        }
    }
    (length / row_bytes * down).min(rows) * width
}

/// Maximum scans of a chunk: one per component and one for all. More are progressive, which TIFF does not allow.
const MAX_SCANS: u32 = 4;

/// Decodes a JPEG chunk; its tables may be in the directory.
pub(super) fn read_jpeg(packed: &[u8], layout: &Layout<'_>, limits: &Limits) -> Result<(Pixels, bool), Error> {
    const START: [u8; 2] = [0xff, 0xd8];
    const END: [u8; 2] = [0xff, 0xd9];
    let tables = layout.jpeg_tables.unwrap_or_default();
    let tables = tables.strip_prefix(&START).unwrap_or(tables);
    let tables = tables.strip_suffix(&END).unwrap_or(tables);
    let scan = packed.strip_prefix(&START).ok_or_else(|| Error::damaged("one of its chunks is not a JPEG"))?;
    // RGB components are read as YCbCr unless a marker says otherwise.
    let plain: &[u8] = if layout.meaning == Meaning::Color { b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0" } else { b"" };
    let joined = [&START, plain, tables, scan].concat();
    let bounds = Limits { max_scans: MAX_SCANS, ..limits.clone() };
    let header = jpeg_header::read(&joined, &bounds)?;
    let (width, height) = layout.chunk;
    if header.width > width || header.height > height {
        return Err(Error::damaged("one of its chunks is too large"));
    }
    limits.check_cost(header.decode_bytes)?;
    let decoded = jpeg::decode(&joined[..header.end], &header, &bounds, (header.width, header.height))?;
    Ok((decoded.pixels, decoded.warning.is_some()))
}
