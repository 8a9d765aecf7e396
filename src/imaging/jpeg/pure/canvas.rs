//! Output image, filled from the top by rows of units.

use fearless_simd::Simd;

use super::color;
use super::frame::{Colors, Frame};
use super::planes::{CARRIED_ROWS, Plane};
use super::upsample::{self, Ratio};
use crate::imaging::decoded::{Inks, inks_to_light};
use crate::imaging::pixels::Pixels;

/// The image decoded so far.
pub(super) struct Canvas {
    pixels: Vec<u8>,
    width: usize,
    height: usize,
    /// Completed rows.
    done: usize,
    colors: Colors,
    inks: Inks,
    channels: Vec<Channel>,
    /// Buffer of one row of inks.
    inked: Vec<u8>,
}

/// Scales one component to the image's size, with a row buffer.
struct Channel {
    across: Ratio,
    down: Ratio,
    /// Visible samples of the component; the rest pads its blocks.
    samples: (usize, usize),
    row: Vec<u8>,
    sums: Vec<u16>,
}

impl Canvas {
    pub(super) fn new(frame: &Frame<'_>, planes: &[Plane]) -> Self {
        let channels = frame.components.iter().zip(planes).map(|(component, plane)| Channel {
            across: Ratio::of(plane.stride, frame.unit_width()),
            down: Ratio::of(plane.fresh, frame.unit_rows),
            samples: component.samples,
            row: vec![0; frame.width + 1],
            sums: vec![0; component.samples.0],
        });
        Self {
            pixels: Vec::with_capacity(frame.width * frame.height * 3),
            width: frame.width,
            height: frame.height,
            done: 0,
            colors: frame.colors,
            inks: if frame.adobe { Inks::Inverted } else { Inks::Plain },
            channels: channels.collect(),
            inked: Vec::new(),
        }
    }

    /// Writes the complete rows in `planes` after row `row` of units was read.
    #[inline(always)]
    pub(super) fn paint<S: Simd>(&mut self, simd: S, frame: &Frame<'_>, planes: &[Plane], row: usize) {
        let is_last = row + 1 == frame.units.1;
        // Upsampling needs the next row, which is not decoded yet for the last rows.
        let waits = if self.channels.iter().any(|channel| channel.down == Ratio::Half) { CARRIED_ROWS } else { 0 };
        let end = if is_last { self.height } else { (row + 1) * frame.unit_rows - waits };
        for y in self.done..end.min(self.height) {
            for (channel, plane) in self.channels.iter_mut().zip(planes) {
                channel.enlarge(plane, y, row);
            }
            self.color(simd, y, row, planes);
        }
        self.done = end.max(self.done).min(self.height);
    }

    #[inline(always)]
    fn color<S: Simd>(&mut self, simd: S, y: usize, row: usize, planes: &[Plane]) {
        let part = |index: usize| self.channels[index].result(&planes[index], y, row, self.width);
        // Allocated only now, so that the row is in the cache when written.
        let from = self.pixels.len();
        self.pixels.resize(from + self.width * 3, 0);
        let out = &mut self.pixels[from..];
        match self.colors {
            Colors::Gray => color::from_gray(part(0), out),
            Colors::YCbCr => color::from_ycbcr(simd, [part(0), part(1), part(2)], out),
            Colors::Rgb => color::from_rgb([part(0), part(1), part(2)], out),
            inks => {
                self.inked.resize(self.width * 4, 0);
                let parts = [part(0), part(1), part(2), part(3)];
                if inks == Colors::Ycck {
                    color::from_ycck(parts, &mut self.inked);
                } else {
                    color::from_cmyk(parts, &mut self.inked);
                }
                let data = std::mem::take(&mut self.inked);
                let mut line = Pixels { width: self.width as u32, height: 1, alpha: true, data };
                inks_to_light(&mut line, self.inks);
                out.copy_from_slice(&line.data);
                self.inked = line.data;
            }
        }
    }

    pub(super) fn into_pixels(self) -> Pixels {
        Pixels { width: self.width as u32, height: self.height as u32, alpha: false, data: self.pixels }
    }
}

impl Channel {
    /// Returns the plane's row for sample row `y` while the plane holds row `row` of units.
    #[inline(always)]
    fn sample_row<'p>(&self, plane: &'p Plane, y: usize, row: usize) -> &'p [u8] {
        let y = y.min(self.samples.1 - 1);
        &plane.row(y + CARRIED_ROWS - row * plane.fresh)[..self.samples.0]
    }

    /// Fills the row buffer with image row `y`, unless the plane already has it.
    #[inline(always)]
    fn enlarge(&mut self, plane: &Plane, y: usize, row: usize) {
        let below = match self.down {
            Ratio::Same => y,
            Ratio::Half => y / 2,
            Ratio::Other(samples, pixels) => y * samples / pixels,
        };
        let near = self.sample_row(plane, below, row);
        let width = self.row.len() - 1;
        if self.down == Ratio::Half && matches!(self.across, Ratio::Same | Ratio::Half) {
            let odd = y % 2 == 1;
            let far = self.sample_row(plane, if odd { below + 1 } else { below.saturating_sub(1) }, row);
            upsample::blend(near, far, &mut self.sums);
            match self.across {
                Ratio::Same => upsample::settle(&self.sums, odd, &mut self.row[..width]),
                _ => upsample::widen_blended(&self.sums, &mut self.row[..width]),
            }
            return;
        }
        match self.across {
            Ratio::Same => {}
            Ratio::Half => upsample::widen(near, &mut self.row[..width]),
            Ratio::Other(samples, pixels) => upsample::repeat(near, (samples, pixels), &mut self.row[..width]),
        }
    }

    /// Returns image row `y` of this component.
    #[inline(always)]
    fn result<'p>(&'p self, plane: &'p Plane, y: usize, row: usize, width: usize) -> &'p [u8] {
        match (self.across, self.down) {
            (Ratio::Same, Ratio::Same) => &self.sample_row(plane, y, row)[..width],
            (Ratio::Same, Ratio::Other(samples, pixels)) => &self.sample_row(plane, y * samples / pixels, row)[..width],
            _ => &self.row[..width],
        }
    }
}
