//! Describes an image for placeholders: a tiny preview and a dominant color.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::pixels::Pixels;

/// Longest edge of the input of a ThumbHash, in pixels.
pub(super) const PREVIEW_EDGE: u32 = 100;

/// Returns the [ThumbHash](https://evanw.github.io/thumbhash/) in standard Base64. `pixels` has at most
/// [`PREVIEW_EDGE`] per side.
pub(super) fn thumbhash(pixels: &Pixels) -> String {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let hash = if pixels.alpha {
        thumbhash::rgba_to_thumb_hash(width, height, &pixels.data)
    } else {
        let data: Vec<u8> = pixels.data.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        thumbhash::rgba_to_thumb_hash(width, height, &data)
    };
    STANDARD.encode(hash)
}

/// Returns the dominant color as `#rrggbb`.
///
/// Pixels are counted in 4,096 cells (four bits per sample); the result is the mean of the fullest cell. Pixels that
/// are more than half transparent are ignored; without others the result is white.
pub(super) fn dominant_color(pixels: &Pixels) -> String {
    let mut cells = vec![(0_u32, [0_u32; 3]); 4096];
    for pixel in pixels.data.chunks_exact(pixels.channels()) {
        if pixel.get(3).is_some_and(|alpha| *alpha < 128) {
            continue;
        }
        let cell = pixel[..3].iter().fold(0, |cell, sample| cell << 4 | usize::from(sample >> 4));
        let (count, sums) = &mut cells[cell];
        *count += 1;
        for (sum, sample) in sums.iter_mut().zip(pixel) {
            *sum += u32::from(*sample);
        }
    }
    // The last of equally full cells, so that the result is deterministic.
    let (count, sums) = cells.into_iter().max_by_key(|cell| cell.0).unwrap_or_default();
    if count == 0 {
        return "#ffffff".to_owned();
    }
    let mean = |sum: u32| (sum + count / 2) / count;
    format!("#{:02x}{:02x}{:02x}", mean(sums[0]), mean(sums[1]), mean(sums[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dominant_color_is_that_of_most_visible_pixels() {
        let red_on_nothing = [[200, 16, 32, 255]; 3].into_iter().chain([[0, 0, 0, 0]; 6]).flatten().collect();
        let pixels = Pixels { width: 3, height: 3, alpha: true, data: red_on_nothing };
        assert_eq!(dominant_color(&pixels), "#c81020");
        assert_eq!(dominant_color(&Pixels { width: 1, height: 1, alpha: true, data: vec![9, 9, 9, 0] }), "#ffffff");
    }
}
