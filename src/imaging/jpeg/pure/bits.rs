//! Reads the bits of a scan, most significant first, without stuffed zero bytes (ITU-T T.81, F.2.2.5). After a marker
//! or the end of the data it returns zeros and counts them.

/// One bit in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Bit reader of one scan. At least 32 bits can be peeked and skipped after each [`Bits::refill`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// Offset of the next byte; never past a marker.
    at: usize,
    /// The next bits, from the top; bits below `count` are zero or the actual next bits.
    bits: u64,
    count: u32,
    /// Number of zeros added after the end of the data.
    invented: u32,
    /// Whether an unknown code or a run past its block occurred.
    pub invalid_code: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bits: 0, count: 0, invented: 0, invalid_code: false }
    }

    /// Ensures that 32 bits are available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            self.fill();
        }
    }

    /// Ensures that 56 bits are available.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        if let Some(next) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_be_bytes(*next);
            // A 0xff byte is zero in the complement, and subtracting one from it borrows.
            if (!word).wrapping_sub(ONES) & word & TOPS == 0 {
                self.bits |= word >> self.count;
                let bytes = (63 - self.count) >> 3;
                self.at += bytes as usize;
                self.count += bytes * 8;
                return;
            }
        }
        *self = self.filled_by_bytes();
    }

    /// Runs [`Bits::fill`] near a 0xff byte. Takes the reader by value, so that hot loops keep it in registers.
    #[inline(never)]
    fn filled_by_bytes(mut self) -> Self {
        while self.count <= 56 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xff), Some(0x00)) => {
                    self.at += 2;
                    0xff
                }
                (Some(0xff), Some(0xff)) => {
                    self.at += 1;
                    continue;
                }
                (Some(0xff), _) | (None, _) => {
                    self.invented = self.invented.saturating_add(63 - self.count);
                    self.count = 63;
                    break;
                }
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// Returns the next `count` bits, 1 to 32.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.bits >> (64 - count)) as u32
    }

    /// Returns the next bits from the top of the word; the bits ensured by the last refill are valid.
    #[inline(always)]
    pub(super) fn word(&self) -> u64 {
        self.bits
    }

    /// Skips `count` bits, 0 to 56.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    /// Reads `count` bits, 0 to 16.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let window = (self.bits >> 32) as u32;
        self.skip(count);
        (u64::from(window) >> (32 - count)) as u32
    }

    /// Reads an integer of `size` bits, 1 to 15, whose top bit is its sign (T.81, F.2.2.1, EXTEND).
    #[inline(always)]
    pub(super) fn take_signed(&mut self, size: u32) -> i32 {
        let negative = !(self.bits as i64 >> 63) as i32;
        let value = self.take(size) as i32;
        value - (((1 << size) - 1) & negative)
    }

    /// Returns whether bits past the data were read.
    #[inline(always)]
    pub(super) fn is_overdrawn(&self) -> bool {
        self.invented > self.count
    }

    /// Continues after the due restart marker, or searches for it.
    pub(super) fn restart(&mut self, due: u8) -> Restart {
        (self.bits, self.count, self.invented) = (0, 0, 0);
        let mut skipped = false;
        while let Some(found) = self.next_marker() {
            if !(0xd0..=0xd7).contains(&found) {
                return Restart::End;
            }
            match found.wrapping_sub(0xd0).wrapping_sub(due) & 7 {
                0 => {
                    self.at += 2;
                    return if skipped { Restart::FoundLater } else { Restart::Found };
                }
                // A later marker: the data before it is lost.
                1..=4 => return Restart::Lost,
                _ => {
                    self.at += 2;
                    skipped = true;
                }
            }
        }
        Restart::End
    }

    /// Moves to the next marker and returns it.
    fn next_marker(&mut self) -> Option<u8> {
        loop {
            self.at += self.data.get(self.at..)?.iter().position(|byte| *byte == 0xff)?;
            match *self.data.get(self.at + 1)? {
                0x00 => self.at += 2,
                0xff => self.at += 1,
                marker => return Some(marker),
            }
        }
    }
}

/// Result of searching for a restart marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// The due marker.
    Found,
    /// The due marker, after earlier ones.
    FoundLater,
    /// A later marker: the data before it is lost.
    Lost,
    /// No marker is left.
    End,
}
