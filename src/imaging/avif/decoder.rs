//! Decodes one AV1 image with a Rust port of dav1d, without its assembly.

use re_rav1d::dav1d::{Decoder, Picture, PixelLayout, PlanarImageComponent, Plane, Settings};

use crate::imaging::error::Error;
use crate::imaging::header::avif::Coding;

/// A decoded image in planes.
pub(super) struct Coded {
    pub width: u32,
    pub height: u32,
    /// Bits per sample: 8, 10 or 12. More than eight use two bytes each.
    pub bits: u32,
    /// Chroma subsampling as shifts; `None` without chroma.
    pub chroma: Option<(u32, u32)>,
    /// Color coding according to the coded image.
    pub coding: Coding,
    planes: Vec<(Plane, usize)>,
}

impl Coded {
    /// Decodes `data`, which must be an image of `size`, on the calling thread. Film grain is not applied: it is noise
    /// for full-size display.
    pub(super) fn decode(data: Vec<u8>, size: (u32, u32)) -> Result<Self, Error> {
        if data.is_empty() {
            return Err(Error::damaged("it has no pixels"));
        }
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_apply_grain(false);
        settings.set_all_layers(false);
        // Reject a coded image larger than its container says before allocating memory for it.
        settings.set_frame_size_limit(size.0.saturating_mul(size.1));
        let mut decoder = Decoder::with_settings(&settings).map_err(refusal)?;
        match decoder.send_data(data, None, None, None) {
            Err(error) if !error.is_again() => return Err(refusal(error)),
            _ => {}
        }
        let image = loop {
            match decoder.get_picture() {
                Ok(image) => break image,
                Err(error) if error.is_again() => {
                    // With no pending data, the decoder returns no more images.
                    let before = decoder.send_pending_data();
                    if before.is_ok() {
                        break decoder.get_picture().map_err(refusal)?;
                    }
                    before.or_else(|error| if error.is_again() { Ok(()) } else { Err(refusal(error)) })?;
                }
                Err(error) => return Err(refusal(error)),
            }
        };
        Self::of(&image, size)
    }

    fn of(image: &Picture, size: (u32, u32)) -> Result<Self, Error> {
        if (image.width(), image.height()) != size {
            return Err(Error::damaged("its dimensions contradict each other"));
        }
        let chroma = match image.pixel_layout() {
            PixelLayout::I400 => None,
            PixelLayout::I420 => Some((1, 1)),
            PixelLayout::I422 => Some((1, 0)),
            PixelLayout::I444 => Some((0, 0)),
        };
        let components = [PlanarImageComponent::Y, PlanarImageComponent::U, PlanarImageComponent::V];
        let count = if chroma.is_some() { 3 } else { 1 };
        let plane = |component| (image.plane(component), image.stride(component) as usize);
        let coding = Coding {
            primaries: 2,
            transfer: 2,
            matrix: image.matrix_coefficients() as u16,
            full_range: image.color_range() as u8 == 1,
        };
        Ok(Self {
            width: size.0,
            height: size.1,
            bits: image.bit_depth() as u32,
            chroma,
            coding,
            planes: components.into_iter().take(count).map(plane).collect(),
        })
    }

    /// Returns row `y` of a plane: luma, blue or red.
    pub(super) fn row(&self, plane: usize, y: usize) -> &[u8] {
        let (plane, stride) = &self.planes[plane];
        &plane[y * stride..][..*stride]
    }
}

fn refusal(error: re_rav1d::dav1d::Error) -> Error {
    Error::damaged(format!("its AV1 data cannot be decoded ({error})"))
}
