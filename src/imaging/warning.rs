//! Warnings about images that were processed despite a defect.

use serde::{Deserialize, Serialize};

/// A defect that does not prevent processing but that the owner should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Warning {
    /// The file is truncated; the missing part is gray or repeats the last color.
    Truncated,
    /// Some data is invalid; parts of the image may be missing or wrong.
    Damaged,
    /// The color profile does not fit the pixels; they are shown as sRGB.
    ProfileIgnored,
    /// Only the first of several frames is used.
    AnimationDropped,
}

impl Warning {
    /// Returns the name in API responses: `truncated`, `damaged`, `profile_ignored`, `animation_dropped`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Damaged => "damaged",
            Self::ProfileIgnored => "profile_ignored",
            Self::AnimationDropped => "animation_dropped",
        }
    }
}
