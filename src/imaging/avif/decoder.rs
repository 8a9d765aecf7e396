//! One coded picture, by a port of dav1d to Rust without its assembly.

use re_rav1d::dav1d::{Decoder, Picture, PixelLayout, PlanarImageComponent, Plane, Settings};

use crate::imaging::error::Error;
use crate::imaging::header::avif::Coding;

/// A decoded picture, in planes.
pub(super) struct Coded {
    pub width: u32,
    pub height: u32,
    /// Bits of a sample: 8, 10 or 12. More than eight take two bytes each.
    pub bits: u32,
    /// By how much the chroma planes are smaller, as shifts; `None` without chroma.
    pub chroma: Option<(u32, u32)>,
    /// How the coded picture says that its colours are coded.
    pub coding: Coding,
    planes: Vec<(Plane, usize)>,
}

impl Coded {
    /// Decodes `data`, which must be a picture of `size`. On the calling thread, without film grain: it is noise for
    /// screens that show the picture at its full size.
    pub(super) fn decode(data: Vec<u8>, size: (u32, u32)) -> Result<Self, Error> {
        if data.is_empty() {
            return Err(Error::damaged("it has no pixels"));
        }
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_apply_grain(false);
        settings.set_all_layers(false);
        // A coded picture larger than its container says is refused before memory is taken for it.
        settings.set_frame_size_limit(size.0.saturating_mul(size.1));
        let mut decoder = Decoder::with_settings(&settings).map_err(refusal)?;
        match decoder.send_data(data, None, None, None) {
            Err(error) if !error.is_again() => return Err(refusal(error)),
            _ => {}
        }
        let picture = loop {
            match decoder.get_picture() {
                Ok(picture) => break picture,
                Err(error) if error.is_again() => {
                    // Without more data, the decoder has nothing more to give.
                    let before = decoder.send_pending_data();
                    if before.is_ok() {
                        break decoder.get_picture().map_err(refusal)?;
                    }
                    before.or_else(|error| if error.is_again() { Ok(()) } else { Err(refusal(error)) })?;
                }
                Err(error) => return Err(refusal(error)),
            }
        };
        Self::of(&picture, size)
    }

    fn of(picture: &Picture, size: (u32, u32)) -> Result<Self, Error> {
        if (picture.width(), picture.height()) != size {
            return Err(Error::damaged("its dimensions contradict each other"));
        }
        let chroma = match picture.pixel_layout() {
            PixelLayout::I400 => None,
            PixelLayout::I420 => Some((1, 1)),
            PixelLayout::I422 => Some((1, 0)),
            PixelLayout::I444 => Some((0, 0)),
        };
        let components = [PlanarImageComponent::Y, PlanarImageComponent::U, PlanarImageComponent::V];
        let count = if chroma.is_some() { 3 } else { 1 };
        let plane = |component| (picture.plane(component), picture.stride(component) as usize);
        let coding = Coding {
            primaries: 2,
            transfer: 2,
            matrix: picture.matrix_coefficients() as u16,
            full_range: picture.color_range() as u8 == 1,
        };
        Ok(Self {
            width: size.0,
            height: size.1,
            bits: picture.bit_depth() as u32,
            chroma,
            coding,
            planes: components.into_iter().take(count).map(plane).collect(),
        })
    }

    /// The bytes of row `y` of a plane: luma, blue, red.
    pub(super) fn row(&self, plane: usize, y: usize) -> &[u8] {
        let (plane, stride) = &self.planes[plane];
        &plane[y * stride..][..*stride]
    }
}

fn refusal(error: re_rav1d::dav1d::Error) -> Error {
    Error::damaged(format!("its AV1 data cannot be decoded ({error})"))
}
