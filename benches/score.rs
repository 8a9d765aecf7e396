//! Scores images against their references with SSIMULACRA2: 100 is identical, 90 hardly distinguishable, 70 good. Reads
//! lines with two paths and a tab between, the reference first, and prints one score per line. Both are binary PPM, so
//! that the code under test does not decode them. `scripts/bench imaging` runs it.

use std::error::Error;
use std::fs;
use std::io::{BufRead, Write, stdin, stdout};

use fast_ssim2::{PixelDescriptor, PixelSlice, Ssimulacra2Reference};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut known: Option<(String, Ssimulacra2Reference)> = None;
    for line in stdin().lock().lines() {
        let line = line?;
        let (reference, image) = line.split_once('\t').ok_or("a line has two paths with a tab between")?;
        // Consecutive images often share a reference, whose part is then computed once.
        if known.as_ref().is_none_or(|(path, _)| path != reference) {
            let read = Ppm::read(reference)?;
            known = Some((reference.to_owned(), Ssimulacra2Reference::new(&read.pixels()?)?));
        }
        let (_, against) = known.as_ref().ok_or("there is a reference")?;
        let score = against.compare(&Ppm::read(image)?.pixels()?)?;
        writeln!(stdout(), "{score:.4}")?;
    }
    Ok(())
}

/// An image with eight bits per sample.
struct Ppm {
    width: u32,
    height: u32,
    samples: Vec<u8>,
}

impl Ppm {
    /// Reads a file that starts with `P6`, width, height and 255, each followed by one whitespace character.
    fn read(path: &str) -> Outcome<Self> {
        let file = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let mut words = file.splitn(5, u8::is_ascii_whitespace);
        let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok()).unwrap_or_default().to_owned();
        let (kind, width, height, most) = (word(), word(), word(), word());
        let samples = words.next().unwrap_or_default().to_vec();
        let (width, height): (u32, u32) = (width.parse()?, height.parse()?);
        if kind != "P6" || most != "255" || samples.len() as u64 != 3 * u64::from(width) * u64::from(height) {
            return Err(format!("{path}: this is no PPM of eight bits").into());
        }
        Ok(Self { width, height, samples })
    }

    fn pixels(&self) -> Outcome<PixelSlice<'_>> {
        let row_bytes = self.width as usize * 3;
        Ok(PixelSlice::new(&self.samples, self.width, self.height, row_bytes, PixelDescriptor::RGB8_SRGB)?)
    }
}
