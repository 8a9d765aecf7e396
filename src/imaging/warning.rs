//! What a picture's owner should know about a picture that could be shown.

use serde::{Deserialize, Serialize};

/// Something that does not stop a picture from being shown but that its owner should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Warning {
    /// The file ends early; what is missing is grey, or of the colour that came last.
    Truncated,
    /// Some of the data make no sense; parts of the picture may be missing or wrong.
    Damaged,
    /// The colour profile does not fit the pixels; they are shown as if they were sRGB.
    ProfileIgnored,
    /// Only the first of several frames is shown.
    AnimationDropped,
}

impl Warning {
    /// The name in answers: `truncated`, `damaged`, `profile_ignored`, `animation_dropped`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Damaged => "damaged",
            Self::ProfileIgnored => "profile_ignored",
            Self::AnimationDropped => "animation_dropped",
        }
    }
}
