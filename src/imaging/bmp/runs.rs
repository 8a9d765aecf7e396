//! Decodes run-length encoding: 4 and 8 bits per index, and OS/2's runs of colors.
//!
//! Skipped pixels are transparent, as in browsers; without alpha, they are white.

use super::outcome::Outcome;
use crate::imaging::decoded::MISSING;
use crate::imaging::header::bmp::{Coding, Layout};
use crate::imaging::pixels::Pixels;

/// Decodes runs until the end code, the last row or the end of the data.
pub(super) fn decode(data: &[u8], layout: &Layout, palette: &[[u8; 3]]) -> (Pixels, Outcome) {
    let mut colors = [[0; 3]; 256];
    colors[..palette.len()].copy_from_slice(palette);
    let (width, height) = (layout.width as usize, layout.height as usize);
    let canvas = Canvas { width, height, top_down: layout.top_down, x: 0, y: 0, data: vec![0; width * height * 4] };
    let mut reader =
        Reader { data, at: 0, coding: layout.coding, colors, known: palette.len(), canvas, damaged: false };
    let is_whole = reader.run().is_some() || reader.canvas.y >= height;
    let Reader { mut canvas, damaged, .. } = reader;
    let pixels = if is_whole { width * height } else { canvas.gray_from_here() };
    let data = canvas.data;
    (Pixels { width: layout.width, height: layout.height, alpha: true, data }, Outcome { pixels, damaged })
}

/// The image and the position of the next pixel; rows are counted as stored.
struct Canvas {
    width: usize,
    height: usize,
    top_down: bool,
    x: usize,
    y: usize,
    data: Vec<u8>,
}

impl Canvas {
    fn row(&self, y: usize) -> usize {
        if self.top_down { y } else { self.height - 1 - y }
    }

    /// Sets one pixel; returns `false` if it is outside the image.
    fn put(&mut self, color: [u8; 3]) -> bool {
        if self.x >= self.width || self.y >= self.height {
            return false;
        }
        let at = (self.row(self.y) * self.width + self.x) * 4;
        self.data[at..at + 3].copy_from_slice(&color);
        self.data[at + 3] = 255;
        self.x += 1;
        true
    }

    /// Fills the rest with gray; returns the number of pixels before it.
    fn gray_from_here(&mut self) -> usize {
        let before = self.y * self.width + self.x.min(self.width);
        for place in before..self.width * self.height {
            let at = (self.row(place / self.width) * self.width + place % self.width) * 4;
            self.data[at..at + 4].copy_from_slice(&[MISSING, MISSING, MISSING, 255]);
        }
        before
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    coding: Coding,
    colors: [[u8; 3]; 256],
    /// Number of colors in the palette.
    known: usize,
    canvas: Canvas,
    damaged: bool,
}

impl Reader<'_> {
    /// Reads codes up to the end code; returns `None` if the data ends before.
    fn run(&mut self) -> Option<()> {
        while self.canvas.y < self.canvas.height {
            let count = usize::from(self.byte()?);
            if count > 0 {
                self.repeated(count)?;
                continue;
            }
            match self.byte()? {
                0 => (self.canvas.x, self.canvas.y) = (0, self.canvas.y + 1),
                1 => return Some(()),
                2 => {
                    self.canvas.x += usize::from(self.byte()?);
                    self.canvas.y += usize::from(self.byte()?);
                }
                count => self.literal(usize::from(count))?,
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn color(&mut self) -> Option<[u8; 3]> {
        let [blue, green, red] = [self.byte()?, self.byte()?, self.byte()?];
        Some([red, green, blue])
    }

    fn put_index(&mut self, index: u8) {
        self.damaged |= usize::from(index) >= self.known;
        let color = self.colors[usize::from(index)];
        self.put(color);
    }

    fn put(&mut self, color: [u8; 3]) {
        self.damaged |= !self.canvas.put(color);
    }

    /// Repeats one color; with four bits, two alternating colors.
    fn repeated(&mut self, count: usize) -> Option<()> {
        match self.coding {
            Coding::ColorRuns => {
                let color = self.color()?;
                (0..count).for_each(|_| self.put(color));
            }
            Coding::IndexRuns(4) => {
                let both = self.byte()?;
                (0..count).for_each(|place| self.put_index(if place % 2 == 0 { both >> 4 } else { both & 15 }));
            }
            _ => {
                let index = self.byte()?;
                (0..count).for_each(|_| self.put_index(index));
            }
        }
        Some(())
    }

    /// Copies colors; they are padded to an even number of bytes.
    fn literal(&mut self, count: usize) -> Option<()> {
        let start = self.at;
        match self.coding {
            Coding::ColorRuns => {
                for _ in 0..count {
                    let color = self.color()?;
                    self.put(color);
                }
            }
            Coding::IndexRuns(4) => {
                let mut both = 0;
                for place in 0..count {
                    both = if place % 2 == 0 { self.byte()? } else { both << 4 };
                    self.put_index(both >> 4);
                }
            }
            _ => {
                for _ in 0..count {
                    let index = self.byte()?;
                    self.put_index(index);
                }
            }
        }
        self.at += (self.at - start) % 2;
        Some(())
    }
}
