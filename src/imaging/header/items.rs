//! The items of a HEIF container (ISO/IEC 23008-12): where their bytes are, what they are like, and which belong together.

use super::boxes::{Numbers, Parts, find};
use crate::imaging::bytes::{be16, be32};
use crate::imaging::error::Error;

/// More than that many items, pieces or properties are no picture.
const MOST: u64 = 4_096;

/// The `meta` box of a file.
pub(in crate::imaging) struct Items<'a> {
    source: &'a [u8],
    /// The boxes within `meta`.
    meta: &'a [u8],
}

/// The pieces of an item's data, in their order, and whether the file has all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::imaging) struct Pieces<'a> {
    pub pieces: Vec<&'a [u8]>,
    pub whole: bool,
}

impl Pieces<'_> {
    /// Bytes in all.
    pub(in crate::imaging) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// All pieces in one.
    pub(in crate::imaging) fn join(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

impl<'a> Items<'a> {
    pub(in crate::imaging) fn of(source: &'a [u8]) -> Option<Self> {
        // Version and flags stand before the boxes.
        let meta = find(source, b"meta")?.get(4..)?;
        Some(Self { source, meta })
    }

    /// The item that is the picture.
    pub(in crate::imaging) fn primary(&self) -> Option<u32> {
        let body = find(self.meta, b"pitm")?;
        if body.first()? == &0 { be16(body, 4).map(u32::from) } else { be32(body, 4) }
    }

    /// What `item` is: `av01`, `grid`, `Exif`.
    pub(in crate::imaging) fn kind(&self, item: u32) -> Option<[u8; 4]> {
        let body = find(self.meta, b"iinf")?;
        let entries = body.get(if body.first()? == &0 { 6 } else { 8 }..)?;
        let mut entries = Parts(entries).take(MOST as usize).filter(|part| &part.kind == b"infe");
        entries.find_map(|part| {
            let (id, kind_at) = match part.body.first()? {
                2 => (u32::from(be16(part.body, 4)?), 8),
                3 => (be32(part.body, 4)?, 10),
                _ => return None,
            };
            part.body.get(kind_at..kind_at + 4).filter(|_| id == item)?.try_into().ok()
        })
    }

    /// The items that `item` refers to by a reference of `kind`.
    pub(in crate::imaging) fn references(&self, item: u32, kind: &[u8; 4]) -> Vec<u32> {
        self.all_references(kind).into_iter().filter(|(from, _)| *from == item).map(|(_, to)| to).collect()
    }

    /// The items that refer to `item` by a reference of `kind`.
    pub(in crate::imaging) fn referring(&self, item: u32, kind: &[u8; 4]) -> Vec<u32> {
        self.all_references(kind).into_iter().filter(|(_, to)| *to == item).map(|(from, _)| from).collect()
    }

    fn all_references(&self, kind: &[u8; 4]) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let Some(body) = find(self.meta, b"iref") else { return found };
        let size = if body.first() == Some(&0) { 2 } else { 4 };
        for part in Parts(body.get(4..).unwrap_or_default()).take(MOST as usize).filter(|part| part.kind == *kind) {
            let mut numbers = Numbers { bytes: part.body, at: 0 };
            let Some((from, count)) = numbers.next(size).zip(numbers.next(2)) else { break };
            for _ in 0..count {
                let Some(to) = numbers.next(size).filter(|_| (found.len() as u64) < MOST) else { break };
                found.push((from as u32, to as u32));
            }
        }
        found
    }

    /// The properties of `item` in their order.
    pub(in crate::imaging) fn properties(&self, item: u32) -> Vec<([u8; 4], &'a [u8])> {
        self.indices(item).unwrap_or_default().into_iter().filter_map(|index| self.property(index)).collect()
    }

    fn property(&self, index: usize) -> Option<([u8; 4], &'a [u8])> {
        let all = find(find(self.meta, b"iprp")?, b"ipco")?;
        Parts(all).nth(index.checked_sub(1)?).map(|part| (part.kind, part.body))
    }

    /// The numbers of the item's properties; most pictures have fewer than ten.
    fn indices(&self, item: u32) -> Option<Vec<usize>> {
        const MOST_OF_ONE: usize = 64;
        let body = find(find(self.meta, b"iprp")?, b"ipma")?;
        let (id_size, wide) = (if body.first()? == &0 { 2 } else { 4 }, body.get(3)? & 1 == 1);
        let mut numbers = Numbers { bytes: body, at: 4 };
        for _ in 0..numbers.next(4)?.min(MOST) {
            let id = numbers.next(id_size)?;
            let count = numbers.next(1)? as usize;
            let size = if wide { 2 } else { 1 };
            if id == u64::from(item) {
                // The highest bit says that the property must be understood.
                let index = |number: u64| (number & if wide { 0x7fff } else { 0x7f }) as usize;
                return Some((0..count.min(MOST_OF_ONE)).map_while(|_| numbers.next(size).map(index)).collect());
            }
            numbers.at += count * size;
        }
        None
    }

    /// Where the bytes of `item` are.
    ///
    /// # Errors
    /// [`Error::Undecodable`] if the file does not say; [`Error::UnsupportedFormat`] for items made of other items.
    pub(in crate::imaging) fn data(&self, item: u32) -> Result<Pieces<'a>, Error> {
        let missing = || Error::damaged("it does not say where its pixels are");
        let (method, places) = self.places(item).ok_or_else(missing)?;
        let room = match method {
            0 => self.source,
            1 => find(self.meta, b"idat").ok_or_else(missing)?,
            _ => return Err(Error::unsupported("an AVIF picture cut out of other items")),
        };
        let mut pieces = Pieces { pieces: Vec::with_capacity(places.len()), whole: true };
        let mut left = self.source.len();
        for (at, length) in places {
            let rest = usize::try_from(at).ok().and_then(|at| room.get(at..)).unwrap_or_default();
            let wanted = if length == 0 { rest.len() } else { usize::try_from(length).unwrap_or(usize::MAX) };
            let piece = &rest[..wanted.min(rest.len())];
            // Pieces may overlap, but not so as to make more bytes than the file has.
            left = left.checked_sub(piece.len()).ok_or_else(|| Error::damaged("its pieces overlap"))?;
            pieces.whole &= piece.len() == wanted && !piece.is_empty();
            pieces.pieces.push(piece);
        }
        Ok(pieces)
    }

    /// How the offsets of `item` are meant, and its pieces: where they begin and how long they are.
    fn places(&self, item: u32) -> Option<(u64, Vec<(u64, u64)>)> {
        let body = find(self.meta, b"iloc")?;
        let version = *body.first()?;
        let mut numbers = Numbers { bytes: body, at: 4 };
        let sizes = numbers.next(2)? as usize;
        let size = |shift: usize| sizes >> shift & 15;
        let (offset, length, base) = (size(12), size(8), size(4));
        let index = if version == 0 { 0 } else { size(0) };
        let id_size = if version < 2 { 2 } else { 4 };
        for _ in 0..numbers.next(id_size)?.min(MOST) {
            let id = numbers.next(id_size)?;
            let method = if version == 0 { 0 } else { numbers.next(2)? & 15 };
            numbers.next(2)?;
            let from = numbers.next(base)?;
            let count = numbers.next(2)?;
            if id == u64::from(item) {
                let mut places = Vec::new();
                for _ in 0..count.min(MOST) {
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
