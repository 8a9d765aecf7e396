//! Huffman codes with the numbers that follow them (ITU-T T.81, C and F.2.2.3). One look-up gives the code's symbol and,
//! where both fit, the number as well.

use super::bits::Bits;

/// Bits of a look-up. Codes have up to 16.
const LOOK: u32 = 10;

/// How a DHT segment describes a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description<'a> {
    /// How many codes there are of each length, 1 to 16.
    pub counts: &'a [u8; 16],
    /// The symbols in the order of their codes.
    pub symbols: &'a [u8],
}

/// A table made for reading.
pub(super) struct Table {
    /// By the next bits: in the low byte how many are used up, 0 if the code is longer; above it the symbol; in the upper
    /// half the number, 0 if it does not fit or there is none.
    short: Box<[u32; 1 << LOOK]>,
    /// For each length the first 16 bits that are too large for it.
    ends: [u32; 17],
    /// For each length what to add to its code to get the symbol's place.
    places: [i32; 17],
    symbols: [u8; 256],
}

/// A symbol with the number that follows it, which is 0 if the symbol says that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coded {
    /// In the upper four bits a run, in the lower four how many bits the number has.
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
    /// `None` if there are more codes than bits tell apart, or fewer symbols than codes.
    pub(super) fn new(description: Description<'_>) -> Option<Self> {
        let mut table = Self { short: Box::new([0; 1 << LOOK]), ends: [0; 17], places: [0; 17], symbols: [0; 256] };
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
                if length <= LOOK {
                    table.enter(code, length, symbol);
                }
                (code, place) = (code + 1, place + 1);
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// Fills all places of the look-up that begin with a code.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        let (free, size) = (LOOK - length, u32::from(symbol & 15));
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

    /// Reads a code and its number; up to 31 bits.
    #[inline(always)]
    pub(super) fn read(&self, bits: &mut Bits<'_>) -> Coded {
        bits.refill();
        let entry = self.short[bits.peek(LOOK) as usize];
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

    /// The length and the symbol of a code that the look-up does not have. A code that does not exist stands for 0.
    #[inline(always)]
    fn find_long(&self, bits: &mut Bits<'_>) -> (u32, u32) {
        let next = bits.peek(16);
        let longer = LOOK + 1..=16;
        match longer.into_iter().find(|length| next < self.ends[*length as usize]) {
            Some(length) => {
                let place = (next >> (16 - length)) as i32 + self.places[length as usize];
                (length, u32::from(self.symbols[place as usize & 0xff]))
            }
            None => {
                bits.nonsense = true;
                (16, 0)
            }
        }
    }
}
