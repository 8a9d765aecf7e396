//! Converts samples of any size and format to eight bits.

use crate::imaging::header::tiff::{Layout, Meaning, Number};

/// Converts rows of packed samples to one byte per sample.
pub(super) struct Narrowing {
    bits: usize,
    number: Number,
    big_endian: bool,
    /// Whether samples are palette indices, which keep their value; others are scaled to 0..=255.
    is_index: bool,
    /// Table of eight-bit values for floats from 0 to 1.
    curve: Vec<u8>,
}

/// Steps of the float table: fine enough for the steepest part of the sRGB curve.
const STEPS: f32 = 8_191.0;

impl Narrowing {
    pub(super) fn new(layout: &Layout<'_>) -> Self {
        let curve = if layout.number == Number::Float { curve(layout.has_profile) } else { Vec::new() };
        // The floating-point predictor gives big-endian samples.
        let big_endian = layout.directory.big_endian || layout.predictor == 3;
        let is_index = layout.meaning == Meaning::Palette;
        Self { bits: layout.bits, number: layout.number, big_endian, is_index, curve }
    }

    /// Writes the samples of `row` to every `step`th element of `bytes`.
    pub(super) fn narrow(&self, row: &[u8], bytes: &mut [u8], step: usize) {
        let targets = bytes.iter_mut().step_by(step);
        match (self.bits, self.number) {
            (8, _) => targets.zip(row).for_each(|(target, sample)| *target = *sample),
            (16, Number::Whole) => targets.zip(row.chunks_exact(2)).for_each(|(target, two)| {
                let sample = u32::from(self.number(two) as u16);
                *target = ((sample * 255 + 32_895) >> 16) as u8;
            }),
            (32, Number::Whole) => {
                targets.zip(row.chunks_exact(4)).for_each(|(target, four)| *target = (self.number(four) >> 24) as u8);
            }
            (bits, Number::Float) => targets
                .zip(row.chunks_exact(bits / 8))
                .for_each(|(target, bytes)| *target = self.by_curve(float(self.number(bytes), bits))),
            (bits, Number::Whole) => {
                targets.enumerate().for_each(|(index, target)| *target = self.odd(row, index, bits))
            }
        }
    }

    fn number(&self, bytes: &[u8]) -> u64 {
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }

    /// Returns a sample of 1 to 15 bits, packed from the highest bit of each byte.
    fn odd(&self, row: &[u8], index: usize, bits: usize) -> u8 {
        let at = index * bits;
        let byte = |place: usize| u32::from(row.get(at / 8 + place).copied().unwrap_or(0));
        let window = byte(0) << 16 | byte(1) << 8 | byte(2);
        let most = (1_u32 << bits) - 1;
        let value = window >> (24 - at % 8 - bits) & most;
        if self.is_index { value as u8 } else { ((value * 255 + most / 2) / most) as u8 }
    }

    fn by_curve(&self, value: f32) -> u8 {
        // NaN is black.
        let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        self.curve[(value * STEPS + 0.5) as usize]
    }
}

/// Returns the table for floats. Floats are linear light, as libvips and Photoshop read them, so the sRGB curve is
/// applied; with a profile, which has its own curve, they are unchanged.
fn curve(has_profile: bool) -> Vec<u8> {
    let value = |step: u32| {
        let light = step as f32 / STEPS;
        let encoded = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
        ((if has_profile { light } else { encoded }) * 255.0 + 0.5) as u8
    };
    (0..=STEPS as u32).map(value).collect()
}

/// Reads IEEE floats of 16, 32 or 64 bits.
fn float(number: u64, bits: usize) -> f32 {
    match bits {
        16 => half(number as u16),
        32 => f32::from_bits(number as u32),
        _ => f64::from_bits(number) as f32,
    }
}

fn half(number: u16) -> f32 {
    let (sign, exponent, fraction) = (number >> 15, i32::from(number >> 10 & 31), f32::from(number & 1023));
    let size = match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction > 0.0 => f32::NAN,
        31 => f32::INFINITY,
        _ => (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    };
    if sign == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_are_read() {
        assert_eq!([0x3c00, 0x3800, 0xc000, 0x0001, 0x7bff].map(half), [1.0, 0.5, -2.0, 2_f32.powi(-24), 65_504.0]);
        assert!(half(0x7c01).is_nan());
    }

    #[test]
    fn linear_light_gets_the_srgb_curve() {
        let curve = curve(false);
        assert_eq!((curve[0], curve[(0.214 * STEPS) as usize], curve[STEPS as usize]), (0, 127, 255));
    }
}
