//! Renders the ThumbHash of an image as a small PNG.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

/// Returns a PNG of up to 32 × 32 pixels for a Base64 ThumbHash; `None` if it is invalid.
pub fn preview(thumbhash: &str) -> Option<Vec<u8>> {
    let hash = STANDARD.decode(thumbhash).ok()?;
    let (width, height, pixels) = thumbhash::thumb_hash_to_rgba(&hash).ok()?;
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&pixels, width, height, ExtendedColorType::Rgba8).ok()?;
    Some(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_a_small_png_and_invalid_input_has_none() {
        let png = preview("1QcSHQRnh493V4dIh4eXh1h4kJUI").expect("a preview");
        let size = image::load_from_memory(&png).expect("a PNG");
        assert!(size.width() <= 32 && size.height() <= 32);
        assert_eq!(preview("AA=="), None);
        assert_eq!(preview("not base64"), None);
    }
}
