//! Computes a rendition's size and visible part in integers. Images are never enlarged.

use super::preset::{Fit, Focus, OutputFormat, Preset, Size};

/// Shape of a rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Minimum size of the whole image, with its aspect ratio, from which the rendition can be made; equal to the
    /// rendition's own size if it shows the whole image undistorted.
    pub whole: (u32, u32),
    /// How it is made from that whole image.
    pub view: View,
}

/// Visible part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum View {
    /// The whole image.
    Whole,
    /// A crop, centered as closely as possible on this point.
    Cut(Focus),
    /// The whole image, distorted to another aspect ratio.
    Squeezed,
}

/// Returns the shape of `preset` for an upright image of `width` × `height` pixels, both at least 1.
pub(super) fn shape(width: u32, height: u32, preset: &Preset, format: OutputFormat) -> Shape {
    let bound = |side: u32| side.clamp(1, format.max_side());
    match (preset.size, preset.fit) {
        (Size::LongestEdge(edge), _) => contain(width, height, bound(edge), bound(edge)),
        (Size::Box { width: across, height: down }, fit) => {
            let (across, down) = (bound(across), bound(down));
            match fit {
                Fit::Contain => contain(width, height, across, down),
                Fit::Cover(focus) => cover(width, height, across, down, focus),
                Fit::Fill => fill(width, height, across, down),
            }
        }
    }
}

/// Returns the largest shape with the image's aspect ratio inside the box, at most the image's size.
pub(super) fn contain(width: u32, height: u32, across: u32, down: u32) -> Shape {
    let (out_width, out_height) = if width <= across && height <= down {
        (width, height)
    } else if is_wider(width, height, across, down) {
        (across, scaled(height, across, width))
    } else {
        (scaled(width, down, height), down)
    };
    Shape { width: out_width, height: out_height, whole: (out_width, out_height), view: View::Whole }
}

/// Returns the box, scaled down to the image if needed, and the crop.
fn cover(width: u32, height: u32, across: u32, down: u32, focus: Focus) -> Shape {
    let (out_width, out_height) = if width >= across && height >= down {
        (across, down)
    } else if is_wider(width, height, across, down) {
        (scaled(across, height, down).min(width), height)
    } else {
        (width, scaled(down, width, across).min(height))
    };
    from_whole(width, height, out_width, out_height, View::Cut(focus))
}

/// Returns the box, each side at most the image's.
fn fill(width: u32, height: u32, across: u32, down: u32) -> Shape {
    from_whole(width, height, width.min(across), height.min(down), View::Squeezed)
}

/// Returns the shape of a rendition; with `view` if its aspect ratio differs from the image's.
fn from_whole(width: u32, height: u32, out_width: u32, out_height: u32, view: View) -> Shape {
    // The relatively longer side sets the scale; the other is rounded up to have enough pixels.
    let whole = if is_wider(width, height, out_width, out_height) {
        (up(width, out_height, height), out_height)
    } else {
        (out_width, up(height, out_width, width))
    };
    let view = if whole == (out_width, out_height) { View::Whole } else { view };
    Shape { width: out_width, height: out_height, whole, view }
}

fn is_wider(width: u32, height: u32, across: u32, down: u32) -> bool {
    u64::from(width) * u64::from(down) >= u64::from(height) * u64::from(across)
}

/// Returns `side * part / of`, rounded to the nearest, at least 1.
fn scaled(side: u32, part: u32, of: u32) -> u32 {
    let (side, part, of) = (u64::from(side), u64::from(part), u64::from(of));
    ((2 * side * part + of) / (2 * of)).max(1) as u32
}

/// Returns `side * part / of`, rounded up.
fn up(side: u32, part: u32, of: u32) -> u32 {
    (u64::from(side) * u64::from(part)).div_ceil(u64::from(of)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::preset::Effort;

    fn preset(size: Size, fit: Fit) -> Preset {
        Preset {
            name: "p".to_owned(),
            size,
            fit,
            formats: vec![OutputFormat::Jpeg],
            quality: 80,
            effort: Effort::Balanced,
        }
    }

    fn shaped(width: u32, height: u32, size: Size, fit: Fit) -> (u32, u32) {
        let shape = shape(width, height, &preset(size, fit), OutputFormat::Jpeg);
        (shape.width, shape.height)
    }

    #[test]
    fn a_shape_keeps_to_its_bounds() {
        let square = Size::Box { width: 200, height: 200 };
        assert_eq!(shaped(4000, 3000, Size::LongestEdge(2048), Fit::Contain), (2048, 1536));
        assert_eq!(shaped(3000, 4000, Size::LongestEdge(160), Fit::Contain), (120, 160));
        assert_eq!(shaped(100, 50, Size::LongestEdge(160), Fit::Contain), (100, 50));
        assert_eq!(shaped(10_000, 1, Size::LongestEdge(160), Fit::Contain), (160, 1));
        assert_eq!(shaped(400, 300, square, Fit::Contain), (200, 150));
        assert_eq!(shaped(400, 300, square, Fit::Cover(Focus::CENTER)), (200, 200));
        assert_eq!(shaped(400, 100, square, Fit::Cover(Focus::CENTER)), (100, 100));
        assert_eq!(shaped(50, 100, Size::Box { width: 200, height: 100 }, Fit::Cover(Focus::CENTER)), (50, 25));
    }

    proptest! {
        #[test]
        fn nothing_is_enlarged_and_the_aspect_is_kept_within_a_pixel(
            width in 1_u32..=16_384, height in 1_u32..=16_384, across in 1_u32..=20_000, down in 1_u32..=20_000,
        ) {
            let shape = contain(width, height, across, down);
            prop_assert!(shape.width <= width.min(across) && shape.height <= height.min(down));
            prop_assert!(shape.width >= 1 && shape.height >= 1);
            let scale = (f64::from(across) / f64::from(width)).min(f64::from(down) / f64::from(height)).min(1.0);
            prop_assert!((f64::from(shape.width) - f64::from(width) * scale).abs() < 1.0);
            prop_assert!((f64::from(shape.height) - f64::from(height) * scale).abs() < 1.0);
        }

        #[test]
        fn a_fill_meets_every_side_that_the_image_reaches(
            width in 1_u32..=16_384, height in 1_u32..=16_384, across in 1_u32..=20_000, down in 1_u32..=20_000,
        ) {
            let shape = fill(width, height, across, down);
            prop_assert_eq!((shape.width, shape.height), (width.min(across), height.min(down)));
            prop_assert!(shape.whole.0 >= shape.width && shape.whole.1 >= shape.height);
            prop_assert!(shape.whole.0 <= width && shape.whole.1 <= height);
            prop_assert_eq!(shape.view == View::Whole, shape.whole == (shape.width, shape.height));
        }

        #[test]
        fn no_side_is_longer_than_its_format_can_say(
            width in 1_u32..=200_000, height in 1_u32..=200_000, across in 1_u32..=200_000, down in 1_u32..=200_000,
        ) {
            for fit in [Fit::Contain, Fit::Cover(Focus::CENTER), Fit::Fill] {
                for format in OutputFormat::ALL {
                    let shape = shape(width, height, &preset(Size::Box { width: across, height: down }, fit), format);
                    prop_assert!(shape.width.max(shape.height) <= format.max_side(), "{:?} as {:?}", fit, format);
                    prop_assert!(shape.width.min(shape.height) >= 1);
                }
            }
        }

        #[test]
        fn a_cover_is_cut_from_an_image_that_is_not_enlarged(
            width in 1_u32..=16_384, height in 1_u32..=16_384, across in 1_u32..=20_000, down in 1_u32..=20_000,
        ) {
            let shape = cover(width, height, across, down, Focus::CENTER);
            prop_assert!(shape.width <= width.min(across) && shape.height <= height.min(down));
            prop_assert!(shape.whole.0 >= shape.width && shape.whole.1 >= shape.height);
            prop_assert!(shape.whole.0 <= width && shape.whole.1 <= height);
        }
    }
}
