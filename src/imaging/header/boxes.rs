//! Parses boxes of ISO base media files (ISO/IEC 14496-12, section 4.2).

use crate::imaging::bytes::{be16, be32, slice};

/// A box; a truncated one has the bytes that exist.
#[derive(Clone, Copy, Debug)]
pub(in crate::imaging) struct Part<'a> {
    pub kind: [u8; 4],
    pub body: &'a [u8],
}

/// Iterates over consecutive boxes.
pub(in crate::imaging) struct Parts<'a>(pub &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let kind = self.0.get(4..8)?.try_into().ok()?;
        let (header, size) = match be32(self.0, 0)? {
            0 => (8, self.0.len()),
            1 => {
                let size = u64::from(be32(self.0, 8)?) << 32 | u64::from(be32(self.0, 12)?);
                (16, usize::try_from(size).unwrap_or(usize::MAX))
            }
            size => (8, size as usize),
        };
        if size < header {
            return None;
        }
        let end = size.min(self.0.len());
        let body = &self.0[header.min(end)..end];
        self.0 = &self.0[end..];
        Some(Part { kind, body })
    }
}

/// Returns the first box of `kind` in `bytes`.
pub(in crate::imaging) fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    Parts(bytes).find(|part| part.kind == *kind).map(|part| part.body)
}

/// Reads consecutive integers of the sizes that a box's version requires.
pub(in crate::imaging) struct Numbers<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl Numbers<'_> {
    /// Reads the next integer of `size` bytes: 0, 1, 2, 4 or 8.
    pub(in crate::imaging) fn next(&mut self, size: usize) -> Option<u64> {
        let at = self.at;
        self.at = at.checked_add(size)?;
        match size {
            0 => Some(0),
            1 => self.bytes.get(at).map(|byte| u64::from(*byte)),
            2 => be16(self.bytes, at).map(u64::from),
            4 => be32(self.bytes, at).map(u64::from),
            8 => slice(self.bytes, at, 8).map(|all| all.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            _ => None,
        }
    }
}
