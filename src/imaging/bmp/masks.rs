//! Samples out of a number by a mask.

/// Where the bits of one sample are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    mask: u32,
    shift: u32,
    /// The largest value that the bits can have, or zero where there are none.
    most: u32,
}

impl Mask {
    /// Bits that are not in one piece are read as if those between them belonged to them and were zero.
    pub(super) fn new(mask: u32) -> Self {
        let shift = if mask == 0 { 0 } else { mask.trailing_zeros() };
        Self { mask, shift, most: mask >> shift }
    }

    /// Whether the bits are in one piece.
    pub(super) fn is_whole(self) -> bool {
        self.most & self.most.wrapping_add(1) == 0
    }

    /// The sample in `number`, 0 to 255, rounded to the nearest; 0 where the mask has no bits.
    pub(super) fn sample(self, number: u32) -> u8 {
        if self.most == 0 {
            return 0;
        }
        let most = u64::from(self.most);
        let value = u64::from((number & self.mask) >> self.shift);
        ((value * 255 + most / 2) / most) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_any_width_fill_the_range_of_a_byte() {
        for mask in [0x1, 0x8000_0000, 0x1f, 0x7e0, 0xffe0_0000, u32::MAX] {
            let mask = Mask::new(mask);
            assert!(mask.is_whole());
            assert_eq!((mask.sample(0), mask.sample(u32::MAX)), (0, 255), "{mask:?}");
        }
        assert_eq!(Mask::new(0x7c00).sample(16 << 10), 132);
        assert_eq!(Mask::new(0).sample(u32::MAX), 0);
        assert!(!Mask::new(0b1011).is_whole());
    }
}
