//! Decompresses strips and tiles, at most to the requested size.

use fax::decoder::{DecodeStatus, Group4Decoder};
use flate2::{Decompress, FlushDecompress};
use weezl::{BitOrder, LzwStatus, decode::Decoder};

use crate::imaging::header::tiff::Packing;

/// Decompresses `packed` into `unpacked`; returns the number of bytes, which may be less than the space.
pub(super) fn unpack(packing: Packing, packed: &[u8], width: u32, unpacked: &mut [u8]) -> usize {
    match packing {
        Packing::None | Packing::Jpeg => {
            let length = packed.len().min(unpacked.len());
            unpacked[..length].copy_from_slice(&packed[..length]);
            length
        }
        Packing::Lzw => lzw(packed, unpacked),
        Packing::Deflate => deflate(packed, unpacked),
        Packing::PackBits => pack_bits(packed, unpacked),
        Packing::Group4 => group4(packed, width, unpacked),
    }
}

fn lzw(mut packed: &[u8], unpacked: &mut [u8]) -> usize {
    let mut decoder = Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut done = 0;
    while done < unpacked.len() {
        let step = decoder.decode_bytes(packed, &mut unpacked[done..]);
        packed = &packed[step.consumed_in..];
        done += step.consumed_out;
        let stuck = step.consumed_in == 0 && step.consumed_out == 0;
        if stuck || !matches!(step.status, Ok(LzwStatus::Ok)) {
            break;
        }
    }
    done
}

fn deflate(packed: &[u8], unpacked: &mut [u8]) -> usize {
    let mut decoder = Decompress::new(true);
    // After an error, the output so far is kept.
    let _ = decoder.decompress(packed, unpacked, FlushDecompress::Finish);
    (decoder.total_out() as usize).min(unpacked.len())
}

/// Decodes PackBits: runs and literals, each after a signed count (TIFF 6.0, section 9).
fn pack_bits(packed: &[u8], unpacked: &mut [u8]) -> usize {
    let (mut at, mut done) = (0, 0);
    while let Some(&count) = packed.get(at) {
        at += 1;
        let count = count as i8;
        let room = unpacked.len() - done;
        if count >= 0 {
            let rest = &packed[at..];
            let length = (usize::from(count.unsigned_abs()) + 1).min(rest.len()).min(room);
            unpacked[done..done + length].copy_from_slice(&rest[..length]);
            (at, done) = (at + length, done + length);
        } else if count != i8::MIN {
            let Some(&byte) = packed.get(at) else { break };
            let length = (usize::from(count.unsigned_abs()) + 1).min(room);
            unpacked[done..done + length].fill(byte);
            (at, done) = (at + 1, done + length);
        }
        if done == unpacked.len() {
            break;
        }
    }
    done
}

/// Decodes CCITT Group 4: one bit per pixel; a set bit is black because the file declares zero as white.
fn group4(packed: &[u8], width: u32, unpacked: &mut [u8]) -> usize {
    let row_bytes = (width as usize).div_ceil(8);
    let Ok(across) = u16::try_from(width) else { return 0 };
    let bytes = packed.iter().map(|byte| Ok::<u8, std::convert::Infallible>(*byte));
    let Ok(mut decoder) = Group4Decoder::new(bytes, across);
    let mut done = 0;
    for row in unpacked.chunks_exact_mut(row_bytes) {
        if !matches!(decoder.advance(), Ok(DecodeStatus::Incomplete)) {
            break;
        }
        row.fill(0);
        for pair in decoder.transition().chunks(2) {
            let end = pair.get(1).copied().unwrap_or(across).min(across);
            for x in usize::from(pair[0])..usize::from(end) {
                row[x / 8] |= 0x80 >> (x % 8);
            }
        }
        done += row_bytes;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packbits_decodes_the_example_of_the_specification() {
        // The example of Apple's technical note 1023.
        let packed = b"\xfe\xaa\x02\x80\x00\x2a\xfd\xaa\x03\x80\x00\x2a\x22\xf7\xaa";
        let mut unpacked = [0; 24];
        assert_eq!(pack_bits(packed, &mut unpacked), 24);
        assert_eq!(unpacked[..8], [0xaa, 0xaa, 0xaa, 0x80, 0, 0x2a, 0xaa, 0xaa]);
        assert_eq!(unpacked[14..], [0xaa; 10]);
        assert_eq!(pack_bits(&packed[..4], &mut unpacked), 4);
    }
}
