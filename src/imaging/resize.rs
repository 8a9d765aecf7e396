//! Makes pictures smaller: Lanczos3, alpha multiplied in before and taken out after, so that what is hidden under
//! transparent pixels does not bleed into the edges.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::error::Error;
use super::geometry::Shape;
use super::pixels::Pixels;

/// Scales pictures, keeping its working memory from one to the next.
pub(super) struct Scaler {
    resizer: Resizer,
}

impl Scaler {
    pub(super) fn new() -> Self {
        Self { resizer: Resizer::new() }
    }

    /// Makes the whole of `pixels` `width` × `height`; nothing is done if that is their size.
    ///
    /// Memory: `width` × the source's height and the outcome, with alpha the source once more.
    pub(super) fn reduce(&mut self, pixels: &mut Pixels, width: u32, height: u32) -> Result<(), Error> {
        if (pixels.width, pixels.height) != (width, height) {
            *pixels = self.resize(pixels, width, height, ResizeOptions::new())?;
        }
        Ok(())
    }

    /// The middle of `pixels` in the shape of a rendition that is cut.
    pub(super) fn cut(&mut self, pixels: &Pixels, shape: Shape) -> Result<Pixels, Error> {
        let (width, height) = (f64::from(pixels.width), f64::from(pixels.height));
        let scale = (f64::from(shape.width) / width).max(f64::from(shape.height) / height);
        let (across, down) =
            ((f64::from(shape.width) / scale).min(width), (f64::from(shape.height) / scale).min(height));
        let options = ResizeOptions::new().crop((width - across) / 2.0, (height - down) / 2.0, across, down);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_under_transparent_pixels_does_not_darken_the_edge() {
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
