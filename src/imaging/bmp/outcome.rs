//! Result of decoding a bitmap's pixels.

/// How much data existed and whether it was valid.
pub(super) struct Outcome {
    /// Number of pixels that exist, in file order.
    pub pixels: usize,
    /// Some data was invalid.
    pub damaged: bool,
}
