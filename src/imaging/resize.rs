//! Downscales images with Lanczos3. Alpha is premultiplied, so that colors under transparent pixels do not bleed into
//! edges.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::error::Error;
use super::geometry::{Shape, View};
use super::pixels::Pixels;
use super::preset::Focus;

/// Scales images and reuses its working memory.
pub(super) struct Scaler {
    resizer: Resizer,
}

impl Scaler {
    pub(super) fn new() -> Self {
        Self { resizer: Resizer::new() }
    }

    /// Scales `pixels` to `width` × `height`; does nothing if they have that size.
    ///
    /// Memory: `width` × the source's height and the result; with alpha also a copy of the source.
    pub(super) fn reduce(&mut self, pixels: &mut Pixels, width: u32, height: u32) -> Result<(), Error> {
        if (pixels.width, pixels.height) != (width, height) {
            *pixels = self.resize(pixels, width, height, ResizeOptions::new())?;
        }
        Ok(())
    }

    /// Returns a rendition of this shape from the whole upright image.
    ///
    /// Memory: as [`Scaler::reduce`].
    pub(super) fn view(&mut self, pixels: &Pixels, shape: Shape) -> Result<Pixels, Error> {
        let options = match shape.view {
            View::Whole | View::Squeezed => ResizeOptions::new(),
            View::Cut(focus) => {
                let (left, top, across, down) = window((pixels.width, pixels.height), shape, focus);
                ResizeOptions::new().crop(left, top, across, down)
            }
        };
        self.resize(pixels, shape.width, shape.height, options)
    }

    fn resize(&mut self, pixels: &Pixels, width: u32, height: u32, options: ResizeOptions) -> Result<Pixels, Error> {
        let kind = if pixels.alpha { PixelType::U8x4 } else { PixelType::U8x3 };
        let fault = |error: &dyn std::fmt::Display| Error::Internal(error.to_string().into());
        let from = ImageRef::new(pixels.width, pixels.height, &pixels.data, kind).map_err(|error| fault(&error))?;
        let mut to = Image::new(width, height, kind);
        let options = options.resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        self.resizer.resize(&from, &mut to, &options).map_err(|error| fault(&error))?;
        Ok(Pixels { width, height, alpha: pixels.alpha, data: to.into_vec() })
    }
}

/// Returns the crop of an image of `size`: left, top, width and height in its pixels. If the image already has the
/// minimum size, the crop is whole pixels, which are copied.
fn window(size: (u32, u32), shape: Shape, focus: Focus) -> (f64, f64, f64, f64) {
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let scale = (f64::from(shape.width) / width).max(f64::from(shape.height) / height);
    let (across, down) = ((f64::from(shape.width) / scale).min(width), (f64::from(shape.height) / scale).min(height));
    let (focus_across, focus_down) = focus.shares();
    let start = |whole: f64, piece: f64, share: f64| (share * whole - piece / 2.0).clamp(0.0, whole - piece);
    if size == shape.whole {
        let (across, down) = (f64::from(shape.width), f64::from(shape.height));
        return (start(width, across, focus_across).round(), start(height, down, focus_down).round(), across, down);
    }
    (start(width, across, focus_across), start(height, down, focus_down), across, down)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::geometry::shape;
    use crate::imaging::preset::{Effort, Fit, OutputFormat, Preset, Size};

    proptest! {
        #[test]
        fn a_crop_is_inside_the_image_and_contains_its_focus(
            width in 1_u32..=5_000, height in 1_u32..=5_000, across in 1_u32..=5_000, down in 1_u32..=5_000,
            focus in (0_u16..=1000, 0_u16..=1000), larger in 1_u32..=3,
        ) {
            let focus = Focus::from_thousandths(focus.0, focus.1).expect("at most 1000");
            let preset = Preset {
                name: "cut".to_owned(),
                size: Size::Box { width: across, height: down },
                fit: Fit::Cover(focus),
                formats: vec![OutputFormat::Png],
                quality: 80,
                effort: Effort::Balanced,
            };
            let shape = shape(width, height, &preset, OutputFormat::Png);
            let (whole_width, whole_height) = (shape.whole.0 * larger, shape.whole.1 * larger);
            let (left, top, piece_width, piece_height) = window((whole_width, whole_height), shape, focus);
            let (right, bottom) = (left + piece_width, top + piece_height);
            let slack = 1e-6;
            prop_assert!(left >= 0.0 && top >= 0.0);
            prop_assert!(right <= f64::from(whole_width) + slack && bottom <= f64::from(whole_height) + slack);
            let (share_across, share_down) = focus.shares();
            let (x, y) = (share_across * f64::from(whole_width), share_down * f64::from(whole_height));
            // Half a pixel for the rounding to whole pixels.
            prop_assert!(left - 0.5 - slack <= x && x <= right + 0.5 + slack);
            prop_assert!(top - 0.5 - slack <= y && y <= bottom + 0.5 + slack);
        }
    }

    #[test]
    fn colors_under_transparent_pixels_do_not_darken_edges() {
        // White on the left, transparent black on the right.
        let data = (0..64 * 64).flat_map(|at| if at % 64 < 33 { [255; 4] } else { [0; 4] }).collect();
        let pixels = Pixels { width: 64, height: 64, alpha: true, data };
        let mut small = pixels;
        Scaler::new().reduce(&mut small, 16, 16).expect("resizes");
        let edge: Vec<_> = small.data.chunks_exact(4).filter(|pixel| pixel[3] > 8 && pixel[3] < 247).collect();
        assert!(!edge.is_empty(), "the edge falls between pixels");
        for pixel in edge {
            assert!(pixel[..3].iter().all(|sample| *sample >= 250), "{pixel:?}");
        }
    }
}
