//! Applies EXIF orientations.

use super::pixels::Pixels;

/// Returns the upright dimensions of a stored image.
pub(super) fn upright(width: u32, height: u32, orientation: u8) -> (u32, u32) {
    if orientation >= 5 { (height, width) } else { (width, height) }
}

/// Applies an EXIF orientation, 1 to 8 (EXIF 2.32, tag 0x0112); ignores other values.
pub(super) fn orient(pixels: Pixels, orientation: u8) -> Pixels {
    if !(2..=8).contains(&orientation) {
        return pixels;
    }
    let (width, height) = upright(pixels.width, pixels.height, orientation);
    let (across, down) = (pixels.width as isize, pixels.height as isize);
    let last = across * down - 1;
    // Index of the upright image's first pixel, and distances to its right and lower neighbors.
    let (first, right, below) = match orientation {
        2 => (across - 1, -1, across),
        3 => (last, -1, -across),
        4 => (last + 1 - across, 1, -across),
        5 => (0, across, 1),
        6 => (last + 1 - across, -across, 1),
        7 => (last, -across, -1),
        _ => (across - 1, across, -1),
    };
    let channels = pixels.channels();
    let mut data = Vec::with_capacity(pixels.data.len());
    for y in 0..height as isize {
        let row = first + y * below;
        for x in 0..width as isize {
            let at = (row + x * right) as usize * channels;
            data.extend_from_slice(&pixels.data[at..at + channels]);
        }
    }
    Pixels { width, height, alpha: pixels.alpha, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` of one letter a pixel.
    fn letters(rows: &[&str]) -> Pixels {
        let data = rows.iter().flat_map(|row| row.bytes()).flat_map(|letter| [letter; 3]).collect();
        Pixels { width: rows[0].len() as u32, height: rows.len() as u32, alpha: false, data }
    }

    #[test]
    fn each_of_the_eight_orientations_ends_upright() {
        // How a camera stores the upright image `ABC / DEF` in each orientation.
        let stored: [&[&str]; 8] = [
            &["ABC", "DEF"],
            &["CBA", "FED"],
            &["FED", "CBA"],
            &["DEF", "ABC"],
            &["AD", "BE", "CF"],
            &["CF", "BE", "AD"],
            &["FC", "EB", "DA"],
            &["DA", "EB", "FC"],
        ];
        for (index, rows) in stored.iter().enumerate() {
            let upright = orient(letters(rows), index as u8 + 1);
            assert_eq!(upright, letters(&["ABC", "DEF"]), "orientation {}", index + 1);
        }
    }
}
