//! Reads the directory of a TIFF file: values by tag, read in place.

use crate::imaging::bytes::{be16, be32, le16, le32, slice};
use crate::imaging::error::Error;

/// First directory of a file.
pub(in crate::imaging) struct Directory<'a> {
    source: &'a [u8],
    /// Values are big-endian.
    pub big_endian: bool,
    entries: Vec<Entry>,
}

struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    /// Offset of the values.
    at: usize,
}

impl<'a> Directory<'a> {
    /// Reads the entries of the first directory in any order; of a truncated one, those that exist.
    pub(in crate::imaging) fn open(source: &'a [u8]) -> Result<Self, Error> {
        let short = || Error::damaged("it ends within its header");
        let big_endian = source.starts_with(b"MM");
        let mut directory = Self { source, big_endian, entries: Vec::new() };
        let start = directory.long(4).ok_or_else(short)? as usize;
        let count = directory.short(start).ok_or_else(short)?;
        for index in 0..usize::from(count) {
            let at = start + 2 + 12 * index;
            let Some(entry) = directory.entry(at) else { break };
            directory.entries.push(entry);
        }
        // The sort is stable, so the first of duplicate tags counts.
        directory.entries.sort_by_key(|entry| entry.tag);
        directory.entries.dedup_by_key(|entry| entry.tag);
        Ok(directory)
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let (tag, kind, count) = (self.short(at)?, self.short(at + 2)?, self.long(at + 4)? as usize);
        let within = count.checked_mul(size_of_kind(kind)).is_some_and(|bytes| bytes <= 4);
        let at = if within { at + 8 } else { self.long(at + 8)? as usize };
        Some(Entry { tag, kind, count, at })
    }

    fn find(&self, tag: u16) -> Option<&Entry> {
        let index = self.entries.binary_search_by_key(&tag, |entry| entry.tag).ok()?;
        Some(&self.entries[index])
    }

    /// Returns the number of values of `tag`; 0 if it is missing.
    pub(in crate::imaging) fn count(&self, tag: u16) -> usize {
        self.find(tag).map_or(0, |entry| entry.count)
    }

    /// Returns the integer at `index` of `tag`.
    pub(in crate::imaging) fn number(&self, tag: u16, index: usize) -> Option<u32> {
        let entry = self.find(tag).filter(|entry| index < entry.count)?;
        let at = entry.at.checked_add(index.checked_mul(size_of_kind(entry.kind))?)?;
        match entry.kind {
            1 | 7 => self.source.get(at).map(|byte| u32::from(*byte)),
            3 => self.short(at).map(u32::from),
            4 | 13 => self.long(at),
            _ => None,
        }
    }

    /// Returns the number at `index` of `tag`, including fractions and floats.
    pub(in crate::imaging) fn real(&self, tag: u16, index: usize) -> Option<f32> {
        let entry = self.find(tag).filter(|entry| index < entry.count)?;
        let at = entry.at.checked_add(index.checked_mul(size_of_kind(entry.kind))?)?;
        match entry.kind {
            5 => Some(self.long(at)? as f32 / self.long(at.checked_add(4)?)? as f32),
            11 => self.long(at).map(f32::from_bits),
            _ => self.number(tag, index).map(|number| number as f32),
        }
    }

    /// Returns the bytes of `tag`.
    pub(in crate::imaging) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let entry = self.find(tag).filter(|entry| matches!(entry.kind, 1 | 2 | 6 | 7))?;
        slice(self.source, entry.at, entry.count)
    }

    fn short(&self, at: usize) -> Option<u16> {
        if self.big_endian { be16(self.source, at) } else { le16(self.source, at) }
    }

    fn long(&self, at: usize) -> Option<u32> {
        if self.big_endian { be32(self.source, at) } else { le32(self.source, at) }
    }
}

/// Returns the bytes per value of a type (TIFF 6.0, section 2).
const fn size_of_kind(kind: u16) -> usize {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 => 8,
        _ => 1,
    }
}
