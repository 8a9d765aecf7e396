//! Chooses a reduced decoding size for a JPEG: its 8 × 8 blocks can be decoded to 4 × 4, 2 × 2 or 1 sample in a
//! fraction of the time.

/// Minimum ratio of decoded to rendered side, in halves. Below it, block scaling is visible (measured by SSIMULACRA2:
/// 1.5 equals full decoding, 1.0 is worse).
const MARGIN_HALVES: u64 = 3;

/// Returns the samples per side of a decoded block: 8, 4, 2 or 1. It is the smallest with a margin above `largest`, the
/// stored width and height that are needed of an image of `size`.
pub(super) fn block_side(size: (u32, u32), largest: (u32, u32)) -> u32 {
    let enough = |side: u32, needed: u32, block: u32| {
        u64::from(side) * u64::from(block) * 2 >= u64::from(needed) * MARGIN_HALVES * 8
    };
    let fits = |block: &u32| enough(size.0, largest.0, *block) && enough(size.1, largest.1, *block);
    [1, 2, 4].into_iter().find(fits).unwrap_or(8)
}

/// Returns the length of a `side` decoded with `block` of eight samples.
pub(super) fn scaled(side: u32, block: u32) -> u32 {
    (u64::from(side) * u64::from(block)).div_ceil(8) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_shrinks_as_far_as_the_margin_allows() {
        assert_eq!(block_side((6000, 4000), (2048, 1365)), 8);
        assert_eq!(block_side((6144, 4096), (2048, 1365)), 4);
        assert_eq!(block_side((4000, 3000), (512, 384)), 2);
        assert_eq!(block_side((8000, 6000), (160, 120)), 1);
        assert_eq!(block_side((100, 100), (100, 100)), 8);
        assert_eq!((scaled(4001, 4), scaled(1, 1), scaled(17, 8)), (2001, 1, 17));
    }
}
