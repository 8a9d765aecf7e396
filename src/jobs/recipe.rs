//! A name for everything beside its bytes that a picture's outcome depends on.

use sha2::{Digest, Sha256};

use crate::imaging::{JPEG_BACKEND, Preset, REVISION};

/// The recipe of `presets`, 32 digits of hex: it changes with each of them and with the codecs.
pub(super) fn of(presets: &[Preset]) -> String {
    let all = format!("{REVISION} {JPEG_BACKEND} {presets:?}");
    hex::encode(&Sha256::digest(all)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::default_presets;

    #[test]
    fn a_recipe_changes_with_any_preset_and_with_nothing_else() {
        let presets = default_presets();
        assert_eq!(of(&presets), of(&presets.clone()));
        let mut others = presets.clone();
        others[3].quality = 81;
        assert_ne!(of(&presets), of(&others));
        assert_ne!(of(&presets), of(&presets[1..]));
    }
}
