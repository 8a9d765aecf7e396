//! How the encoders are to work.

use super::preset::Effort;

/// How the encoders weigh what a rendition looks like, its bytes and their own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    /// 1 to 100, for the lossy formats.
    pub quality: u8,
    /// Time against bytes.
    pub effort: Effort,
}
