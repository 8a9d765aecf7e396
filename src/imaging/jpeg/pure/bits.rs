//! The bits of a scan's data, most significant first, without the stuffed zero bytes (ITU-T T.81, F.2.2.5). At a marker
//! or at the end of the data zeros follow without end, and it is known how many of them were taken.

/// One bit in each byte, and the top bit of each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Reads the data of one scan. At least 32 bits can be peeked at and skipped after each [`Bits::refill`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// Where the next byte to be taken in stands; never beyond a marker.
    at: usize,
    /// The next bits, from the top; those below `count` are zero or the ones that really follow.
    bits: u64,
    count: u32,
    /// Zeros that were added because the data had ended.
    invented: u32,
    /// Whether a code came up that no table has, or a run that leaves its block.
    pub nonsense: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bits: 0, count: 0, invented: 0, nonsense: false }
    }

    /// Makes sure of 32 bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            self.fill();
        }
    }

    /// Makes sure of 56 bits.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        if let Some(next) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_be_bytes(*next);
            // A byte of 0xff is a zero byte of the complement, and subtracting one from it borrows.
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

    /// As [`Bits::fill`], where a byte of 0xff is near. By value, so that the hot loops can keep a reader in registers.
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

    /// The next `count` bits, 1 to 32.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.bits >> (64 - count)) as u32
    }

    /// The next bits, from the top of the word; as many as the last refill made sure of are right.
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

    /// Takes `count` bits, 0 to 16.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let taken = (self.bits >> 32) as u32;
        self.skip(count);
        (u64::from(taken) >> (32 - count)) as u32
    }

    /// Takes a number of `size` bits, 1 to 15, whose top bit tells its sign (T.81, F.2.2.1, EXTEND).
    #[inline(always)]
    pub(super) fn take_signed(&mut self, size: u32) -> i32 {
        let negative = !(self.bits as i64 >> 63) as i32;
        let value = self.take(size) as i32;
        value - (((1 << size) - 1) & negative)
    }

    /// Whether bits were taken that are not in the data.
    #[inline(always)]
    pub(super) fn is_overdrawn(&self) -> bool {
        self.invented > self.count
    }

    /// Goes on behind the restart marker that is due, if it is there; looks for it where it is not.
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
                // A marker that is due later: what stood before it is lost.
                1..=4 => return Restart::Lost,
                _ => {
                    self.at += 2;
                    skipped = true;
                }
            }
        }
        Restart::End
    }

    /// The marker at or after the place of the reader, which is moved to it.
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

/// What came of looking for a restart marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// It was there.
    Found,
    /// It was there after others that had been due before it.
    FoundLater,
    /// A later one is there, so the data up to it are lost.
    Lost,
    /// There is none any more.
    End,
}
