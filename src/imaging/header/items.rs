//! Reads the items of a HEIF container (ISO/IEC 23008-12): their data, properties and references.

use super::boxes::{Numbers, Parts, find};
use crate::imaging::bytes::{be16, be32};
use crate::imaging::error::Error;

/// Maximum items, extents or properties.
const MAX_ITEMS: u64 = 4_096;

/// `meta` box of a file.
pub(in crate::imaging) struct Items<'a> {
    source: &'a [u8],
    /// Boxes inside `meta`.
    meta: &'a [u8],
}

/// Extents of an item's data in order, and whether the file contains all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::imaging) struct Pieces<'a> {
    pub pieces: Vec<&'a [u8]>,
    pub whole: bool,
}

impl Pieces<'_> {
    /// Returns the total bytes.
    pub(in crate::imaging) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Joins all extents.
    pub(in crate::imaging) fn join(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

impl<'a> Items<'a> {
    pub(in crate::imaging) fn of(source: &'a [u8]) -> Option<Self> {
        // Version and flags precede the boxes.
        let meta = find(source, b"meta")?.get(4..)?;
        Some(Self { source, meta })
    }

    /// Returns the primary item.
    pub(in crate::imaging) fn primary(&self) -> Option<u32> {
        let body = find(self.meta, b"pitm")?;
        if body.first()? == &0 { be16(body, 4).map(u32::from) } else { be32(body, 4) }
    }

    /// Returns the type of `item`: `av01`, `grid`, `Exif`.
    pub(in crate::imaging) fn kind(&self, item: u32) -> Option<[u8; 4]> {
        let body = find(self.meta, b"iinf")?;
        let entries = body.get(if body.first()? == &0 { 6 } else { 8 }..)?;
        let mut entries = Parts(entries).take(MAX_ITEMS as usize).filter(|part| &part.kind == b"infe");
        entries.find_map(|part| {
            let (id, kind_at) = match part.body.first()? {
                2 => (u32::from(be16(part.body, 4)?), 8),
                3 => (be32(part.body, 4)?, 10),
                _ => return None,
            };
            part.body.get(kind_at..kind_at + 4).filter(|_| id == item)?.try_into().ok()
        })
    }

    /// Returns the items that `item` references with `kind`.
    pub(in crate::imaging) fn references(&self, item: u32, kind: &[u8; 4]) -> Vec<u32> {
        self.all_references(kind).into_iter().filter(|(from, _)| *from == item).map(|(_, to)| to).collect()
    }

    /// Returns the items that reference `item` with `kind`.
    pub(in crate::imaging) fn referring(&self, item: u32, kind: &[u8; 4]) -> Vec<u32> {
        self.all_references(kind).into_iter().filter(|(_, to)| *to == item).map(|(from, _)| from).collect()
    }

    fn all_references(&self, kind: &[u8; 4]) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let Some(body) = find(self.meta, b"iref") else { return found };
        let size = if body.first() == Some(&0) { 2 } else { 4 };
        for part in Parts(body.get(4..).unwrap_or_default()).take(MAX_ITEMS as usize).filter(|part| part.kind == *kind)
        {
            let mut numbers = Numbers { bytes: part.body, at: 0 };
            let Some((from, count)) = numbers.next(size).zip(numbers.next(2)) else { break };
            for _ in 0..count {
                let Some(to) = numbers.next(size).filter(|_| (found.len() as u64) < MAX_ITEMS) else { break };
                found.push((from as u32, to as u32));
            }
        }
        found
    }

    /// Returns the properties of `item` in order.
    pub(in crate::imaging) fn properties(&self, item: u32) -> Vec<([u8; 4], &'a [u8])> {
        self.indices(item).unwrap_or_default().into_iter().filter_map(|index| self.property(index)).collect()
    }

    fn property(&self, index: usize) -> Option<([u8; 4], &'a [u8])> {
        let all = find(find(self.meta, b"iprp")?, b"ipco")?;
        Parts(all).nth(index.checked_sub(1)?).map(|part| (part.kind, part.body))
    }

    /// Returns the item's property indices; most images have fewer than ten.
    fn indices(&self, item: u32) -> Option<Vec<usize>> {
        const MAX_OF_ONE: usize = 64;
        let body = find(find(self.meta, b"iprp")?, b"ipma")?;
        let (id_size, wide) = (if body.first()? == &0 { 2 } else { 4 }, body.get(3)? & 1 == 1);
        let mut numbers = Numbers { bytes: body, at: 4 };
        for _ in 0..numbers.next(4)?.min(MAX_ITEMS) {
            let id = numbers.next(id_size)?;
            let count = numbers.next(1)? as usize;
            let size = if wide { 2 } else { 1 };
            if id == u64::from(item) {
                // The highest bit marks an essential property.
                let index = |number: u64| (number & if wide { 0x7fff } else { 0x7f }) as usize;
                return Some((0..count.min(MAX_OF_ONE)).map_while(|_| numbers.next(size).map(index)).collect());
            }
            numbers.at += count * size;
        }
        None
    }

    /// Returns the data of `item`.
    ///
    /// # Errors
    /// [`Error::Undecodable`] if the location is missing; [`Error::UnsupportedFormat`] for items derived from other
    /// items.
    pub(in crate::imaging) fn data(&self, item: u32) -> Result<Pieces<'a>, Error> {
        let missing = || Error::damaged("the location of its pixels is missing");
        let (method, places) = self.places(item).ok_or_else(missing)?;
        let room = match method {
            0 => self.source,
            1 => find(self.meta, b"idat").ok_or_else(missing)?,
            _ => return Err(Error::unsupported("an AVIF image cut out of other items")),
        };
        let mut pieces = Pieces { pieces: Vec::with_capacity(places.len()), whole: true };
        let mut left = self.source.len();
        for (at, length) in places {
            let rest = usize::try_from(at).ok().and_then(|at| room.get(at..)).unwrap_or_default();
            let wanted = if length == 0 { rest.len() } else { usize::try_from(length).unwrap_or(usize::MAX) };
            let piece = &rest[..wanted.min(rest.len())];
            // Extents may overlap, but must not total more bytes than the file.
            left = left.checked_sub(piece.len()).ok_or_else(|| Error::damaged("its pieces overlap"))?;
            pieces.whole &= piece.len() == wanted && !piece.is_empty();
            pieces.pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Returns the construction method of `item`, and the offset and length of its extents.
    fn places(&self, item: u32) -> Option<(u64, Vec<(u64, u64)>)> {
        let body = find(self.meta, b"iloc")?;
        let version = *body.first()?;
        let mut numbers = Numbers { bytes: body, at: 4 };
        let sizes = numbers.next(2)? as usize;
        let size = |shift: usize| sizes >> shift & 15;
        let (offset, length, base) = (size(12), size(8), size(4));
        let index = if version == 0 { 0 } else { size(0) };
        let id_size = if version < 2 { 2 } else { 4 };
        for _ in 0..numbers.next(id_size)?.min(MAX_ITEMS) {
            let id = numbers.next(id_size)?;
            let method = if version == 0 { 0 } else { numbers.next(2)? & 15 };
            numbers.next(2)?;
            let from = numbers.next(base)?;
            let count = numbers.next(2)?;
            if id == u64::from(item) {
                let mut places = Vec::new();
                for _ in 0..count.min(MAX_ITEMS) {
                    numbers.next(index)?;
                    places.push((from.checked_add(numbers.next(offset)?)?, numbers.next(length)?));
                }
                return Some((method, places));
            }
            numbers.at += count as usize * (index + offset + length);
        }
        None
    }
}
