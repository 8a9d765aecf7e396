//! What has become of the pixels of a bitmap.

/// How much there was, and whether it made sense.
pub(super) struct Outcome {
    /// In the order of the file, how many of its pixels are there.
    pub pixels: usize,
    /// Some of the data made no sense.
    pub damaged: bool,
}
