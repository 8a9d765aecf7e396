//! Quantization and Huffman tables of a file, and defaults for missing ones.

use std::rc::Rc;

use super::huffman::{Description, Table};

/// Row-major index of each coefficient in zigzag order (ITU-T T.81, figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Factors of 64 coefficients in zigzag order.
pub(super) type Quantization = [u16; 64];

/// Tables in force at a position of a file.
#[derive(Default)]
pub(super) struct Tables<'a> {
    quantization: [Option<Rc<Quantization>>; 4],
    direct: [Slot<'a>; 4],
    alternating: [Slot<'a>; 4],
}

/// A Huffman table, built on first use.
#[derive(Clone, Default)]
struct Slot<'a> {
    description: Option<Description<'a>>,
    made: Option<Rc<Table>>,
}

/// Kind of a Huffman table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For the mean of a block (DC).
    Direct,
    /// For the other 63 coefficients (AC).
    Alternating,
}

impl<'a> Tables<'a> {
    /// Stores the tables of a DQT segment; returns `false` if it is invalid (T.81, B.2.4.1).
    pub(super) fn quantize(&mut self, mut body: &[u8]) -> bool {
        while let [which, rest @ ..] = body {
            let (wide, slot) = (which >> 4 != 0, usize::from(which & 15));
            let length = if wide { 128 } else { 64 };
            let (Some(factors), Some(place)) = (rest.get(..length), self.quantization.get_mut(slot)) else {
                return false;
            };
            let factor = |index: usize| {
                if wide {
                    u16::from_be_bytes([factors[2 * index], factors[2 * index + 1]])
                } else {
                    u16::from(factors[index])
                }
            };
            *place = Some(Rc::new(std::array::from_fn(factor)));
            body = &rest[length..];
        }
        true
    }

    /// Stores the tables of a DHT segment; returns `false` if it is invalid (T.81, B.2.4.2).
    pub(super) fn describe(&mut self, mut body: &'a [u8]) -> bool {
        while let [which, rest @ ..] = body {
            let slots = if which >> 4 == 0 { &mut self.direct } else { &mut self.alternating };
            let Some((counts, rest)) = rest.split_first_chunk::<16>() else { return false };
            let codes = counts.iter().map(|count| usize::from(*count)).sum();
            let (Some(symbols), Some(slot)) = (rest.get(..codes), slots.get_mut(usize::from(which & 15))) else {
                return false;
            };
            *slot = Slot { description: Some(Description { counts, symbols }), made: None };
            body = &rest[codes..];
        }
        true
    }

    pub(super) fn quantization(&self, slot: u8) -> Option<Rc<Quantization>> {
        self.quantization.get(usize::from(slot))?.clone()
    }

    /// Returns the Huffman table in a slot, or the default one for Motion JPEG frames, which have none; `None` if it is
    /// invalid.
    pub(super) fn huffman(&mut self, kind: Kind, slot: u8) -> Option<Rc<Table>> {
        let slots = if kind == Kind::Direct { &mut self.direct } else { &mut self.alternating };
        let place = slots.get_mut(usize::from(slot))?;
        if place.made.is_none() {
            let description = place.description.or_else(|| usual(kind, slot))?;
            place.made = Some(Rc::new(Table::new(description)?));
        }
        place.made.clone()
    }
}

/// Returns the tables of T.81, annex K.3: luma in slot 0, chroma in slot 1.
pub(super) fn usual(kind: Kind, slot: u8) -> Option<Description<'static>> {
    let (counts, symbols): (_, &[u8]) = match (kind, slot) {
        (Kind::Direct, 0) => (&[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &DIRECT),
        (Kind::Direct, 1) => (&[0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &DIRECT),
        (Kind::Alternating, 0) => (&[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], &LUMA),
        (Kind::Alternating, 1) => (&[0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119], &CHROMA),
        _ => return None,
    };
    Some(Description { counts, symbols })
}

const DIRECT: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

const LUMA: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14,
    0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09,
    0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a,
    0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65,
    0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88,
    0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9,
    0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca,
    0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea,
    0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

const CHROMA: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32,
    0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16,
    0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39,
    0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64,
    0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86,
    0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8,
    0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9,
    0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tables_have_a_symbol_for_each_code() {
        for kind in [Kind::Direct, Kind::Alternating] {
            for slot in 0..2 {
                let usual = usual(kind, slot).expect("there are four");
                let codes: usize = usual.counts.iter().map(|count| usize::from(*count)).sum();
                let mut symbols = usual.symbols.to_vec();
                symbols.sort_unstable();
                symbols.dedup();
                assert_eq!((symbols.len(), usual.symbols.len()), (codes, codes));
                assert!(Tables::default().huffman(kind, slot).is_some());
            }
            assert!(Tables::default().huffman(kind, 2).is_none());
        }
    }
}
