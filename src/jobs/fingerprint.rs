//! Pipeline fingerprint: identifies everything but an image's bytes that its result depends on.

use sha2::{Digest, Sha256};

use crate::imaging::{JPEG_BACKEND, Preset, REVISION};

/// Returns the fingerprint of `presets`: 32 hex digits that change with the presets and the codecs.
pub(super) fn of(presets: &[Preset]) -> String {
    let all = format!("{REVISION} {JPEG_BACKEND} {presets:?}");
    hex::encode(&Sha256::digest(all)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::default_presets;

    #[test]
    fn fingerprint_changes_with_any_preset() {
        let presets = default_presets();
        assert_eq!(of(&presets), of(&presets.clone()));
        let mut others = presets.clone();
        others[3].quality = 81;
        assert_ne!(of(&presets), of(&others));
        assert_ne!(of(&presets), of(&presets[1..]));
    }
}
