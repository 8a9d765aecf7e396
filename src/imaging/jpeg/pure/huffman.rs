//! Decodes Huffman codes with the integers that follow them (ITU-T T.81, C and F.2.2.3). One lookup returns the symbol
//! and, if both fit, the integer.

use super::bits::Bits;

/// Bits of a lookup; codes have up to 16.
const LOOKUP_BITS: u32 = 10;

/// Table description of a DHT segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description<'a> {
    /// Number of codes of each length, 1 to 16.
    pub counts: &'a [u8; 16],
    /// Symbols in the order of their codes.
    pub symbols: &'a [u8],
}

/// A decoding table.
pub(super) struct Table {
    /// Entry by the next bits. Low byte: bits used, 0 if the code is longer; next byte: the symbol; upper half: the
    /// integer, 0 if it does not fit or is absent.
    short: Box<[u32; 1 << LOOKUP_BITS]>,
    /// For each length, the first 16 bits that are too large for it.
    ends: [u32; 17],
    /// For each length, the offset from code to symbol index.
    places: [i32; 17],
    symbols: [u8; 256],
}

/// A symbol with the following integer, or 0 if it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coded {
    /// Upper four bits: a run; lower four: the integer's length in bits.
    pub symbol: u32,
    pub value: i32,
}

impl Coded {
    #[inline(always)]
    pub(super) fn run(self) -> u32 {
        self.symbol >> 4
    }
}

impl Table {
    /// Creates a table; `None` if there are too many codes or too few symbols.
    pub(super) fn new(description: Description<'_>) -> Option<Self> {
        let mut table =
            Self { short: Box::new([0; 1 << LOOKUP_BITS]), ends: [0; 17], places: [0; 17], symbols: [0; 256] };
        table.symbols.get_mut(..description.symbols.len())?.copy_from_slice(description.symbols);
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = u32::from(description.counts[length as usize - 1]);
            table.places[length as usize] = place as i32 - code as i32;
            if code + count > 1 << length {
                return None;
            }
            for _ in 0..count {
                let symbol = *description.symbols.get(place)?;
                if length <= LOOKUP_BITS {
                    table.enter(code, length, symbol);
                }
                (code, place) = (code + 1, place + 1);
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// Fills all lookup entries that begin with a code.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        let (free, size) = (LOOKUP_BITS - length, u32::from(symbol & 15));
        let first = (code << free) as usize;
        for (rest, entry) in self.short[first..first + (1 << free)].iter_mut().enumerate() {
            *entry = u32::from(symbol) << 8 | length;
            if (1..=free).contains(&size) {
                let bits = rest as u32 >> (free - size);
                let value = if bits >> (size - 1) == 0 { bits as i32 - (1 << size) + 1 } else { bits as i32 };
                *entry = (value as u32) << 16 | u32::from(symbol) << 8 | (length + size);
            }
        }
    }

    /// Reads a code and its integer; up to 31 bits.
    #[inline(always)]
    pub(super) fn read(&self, bits: &mut Bits<'_>) -> Coded {
        bits.refill();
        let entry = self.short[bits.peek(LOOKUP_BITS) as usize];
        let value = entry as i32 >> 16;
        if value != 0 {
            bits.skip(entry & 0xff);
            return Coded { symbol: entry >> 8 & 0xff, value };
        }
        let (length, symbol) = if entry == 0 { self.find_long(bits) } else { (entry & 0xff, entry >> 8) };
        bits.skip(length);
        let size = symbol & 15;
        let value = if size == 0 { 0 } else { bits.take_signed(size) };
        Coded { symbol, value }
    }

    /// Returns length and symbol of a code longer than the lookup. An unknown code means symbol 0.
    #[inline(always)]
    fn find_long(&self, bits: &mut Bits<'_>) -> (u32, u32) {
        let next = bits.peek(16);
        let longer = LOOKUP_BITS + 1..=16;
        match longer.into_iter().find(|length| next < self.ends[*length as usize]) {
            Some(length) => {
                let place = (next >> (16 - length)) as i32 + self.places[length as usize];
                (length, u32::from(self.symbols[place as usize & 0xff]))
            }
            None => {
                bits.invalid_code = true;
                (16, 0)
            }
        }
    }
}
