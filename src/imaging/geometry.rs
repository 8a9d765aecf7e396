//! How large a rendition is, and how much of the picture it shows. Whole numbers only, nothing is ever enlarged.

use super::preset::{Fit, Focus, OutputFormat, Preset, Size};

/// The shape of a rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// The least dimensions of the whole picture, its aspect kept, from which the rendition can be made; its own where
    /// it shows all of it undistorted.
    pub whole: (u32, u32),
    /// How it comes from that whole picture.
    pub view: View,
}

/// What a rendition shows of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum View {
    /// All of it as it is.
    Whole,
    /// A piece: two sides are cut off, so that this point is as near the middle as they allow.
    Cut(Focus),
    /// All of it, one side made shorter than the aspect asks for.
    Squeezed,
}

/// The shape that `preset` gives to an upright picture of `width` × `height` pixels, both at least 1.
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

/// The largest shape of the picture's aspect inside the box and not larger than the picture.
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

/// The box, made smaller if the picture does not fill it, and what of the picture it shows.
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

/// The box, each side of it at most the picture's own.
fn fill(width: u32, height: u32, across: u32, down: u32) -> Shape {
    from_whole(width, height, width.min(across), height.min(down), View::Squeezed)
}

/// The shape of a rendition that may not have the picture's aspect; `view` if it has not.
fn from_whole(width: u32, height: u32, out_width: u32, out_height: u32, view: View) -> Shape {
    // The side that comes out relatively longer decides the scale; the other is rounded up, so that there is enough.
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

/// `side * part / of`, rounded to the nearest, at least 1.
fn scaled(side: u32, part: u32, of: u32) -> u32 {
    let (side, part, of) = (u64::from(side), u64::from(part), u64::from(of));
    ((2 * side * part + of) / (2 * of)).max(1) as u32
}

/// `side * part / of`, rounded up.
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
        fn a_fill_meets_every_side_that_the_picture_reaches(
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
        fn a_cover_is_cut_from_a_picture_that_is_not_enlarged(
            width in 1_u32..=16_384, height in 1_u32..=16_384, across in 1_u32..=20_000, down in 1_u32..=20_000,
        ) {
            let shape = cover(width, height, across, down, Focus::CENTER);
            prop_assert!(shape.width <= width.min(across) && shape.height <= height.min(down));
            prop_assert!(shape.whole.0 >= shape.width && shape.whole.1 >= shape.height);
            prop_assert!(shape.whole.0 <= width && shape.whole.1 <= height);
        }
    }
}
