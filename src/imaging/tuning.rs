//! Encoder settings.

use super::preset::Effort;

/// Balances quality, size and encoding time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// 1 to 100, for the lossy formats.
    pub quality: u8,
    /// Encoding effort.
    pub effort: Effort,
}
