//! Extracts samples from an integer by bit masks.

/// Bit mask of one sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    mask: u32,
    shift: u32,
    /// Maximum value of the bits; zero without bits.
    most: u32,
}

impl Mask {
    /// Creates a mask. Gaps in a non-contiguous mask count as zero bits of the sample.
    pub(super) fn new(mask: u32) -> Self {
        let shift = if mask == 0 { 0 } else { mask.trailing_zeros() };
        Self { mask, shift, most: mask >> shift }
    }

    /// Returns whether the bits are contiguous.
    pub(super) fn is_whole(self) -> bool {
        self.most & self.most.wrapping_add(1) == 0
    }

    /// Returns the sample in `number` scaled to 0 to 255, rounded; 0 if the mask is empty.
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
