//! Reads the orientation from an EXIF block; ignores everything else.

use crate::imaging::bytes::{be16, be32, le16, le32};

/// Maximum directory entries inspected; cameras write about a dozen.
const MAX_ENTRIES: usize = 200;

const ORIENTATION: u16 = 0x0112;

/// Returns the orientation, 1 to 8, of an EXIF block that begins with its TIFF header (`II*` or `MM*`), optionally
/// after JPEG's `Exif\0\0`. `None` if it is missing or out of range.
pub(in crate::imaging) fn orientation(block: &[u8]) -> Option<u8> {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let little = match block.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at| if little { le16(block, at) } else { be16(block, at) };
    let long = |at| if little { le32(block, at) } else { be32(block, at) };
    let directory = long(4)? as usize;
    let entries = usize::from(short(directory)?).min(MAX_ENTRIES);
    for entry in 0..entries {
        let at = directory.checked_add(2 + entry * 12)?;
        if short(at)? == ORIENTATION {
            let value = short(at.checked_add(8)?)?;
            return u8::try_from(value).ok().filter(|value| (1..=8).contains(value));
        }
    }
    None
}

#[cfg(test)]
pub(in crate::imaging) mod tests {
    use super::*;

    /// Returns a big-endian TIFF block with only the orientation.
    pub(in crate::imaging) fn block(orientation: u8) -> Vec<u8> {
        let mut block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0]);
        block
    }

    #[test]
    fn the_orientation_is_read_in_either_byte_order() {
        assert_eq!(orientation(&block(6)), Some(6));
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(orientation(little), Some(3));
        assert_eq!(orientation(&[b"Exif\0\0".to_vec(), block(8)].concat()), Some(8));
    }

    #[test]
    fn an_invalid_orientation_is_ignored() {
        assert_eq!(orientation(&block(9)), None);
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), None);
        assert_eq!(orientation(b""), None);
        for cut in 0..block(6).len() {
            let _ = orientation(&block(6)[..cut]);
        }
    }
}
