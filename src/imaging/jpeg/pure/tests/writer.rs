//! Writes JPEGs that no encoder writes: any sampling factors, with separate or interleaved scans.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use image::RgbImage;

use crate::imaging::decoded::{Inks, inks_to_light};
use crate::imaging::jpeg::pure::tables::{Kind, ZIGZAG, usual};
use crate::imaging::pixels::Pixels;

pub(super) struct Layout<'a> {
    pub width: u32,
    pub height: u32,
    pub factors: &'a [(u8, u8)],
    pub interleaved: bool,
    /// Units between restart markers, or 0.
    pub interval: u16,
}

/// Returns the level of a component at a position, 0 to 1 across and down.
pub(super) fn sample(component: usize, across: f64, down: f64) -> f64 {
    match component {
        0 => 60.0 + 120.0 * across + 40.0 * down,
        1 => 150.0 - 60.0 * down,
        2 => 110.0 + 50.0 * across,
        _ => 90.0 + 60.0 * across * down,
    }
}

/// Returns the expected image of a file with this many components.
pub(super) fn image(width: u32, height: u32, components: usize) -> RgbImage {
    let at = |x: u32, side: u32| (f64::from(x) + 0.5) / f64::from(side);
    let level = |index: usize, x: u32, y: u32| sample(index, at(x, width), at(y, height));
    if components == 4 {
        let pixel = |at: u32| (0..4).map(move |index| level(index, at % width, at / width).round() as u8);
        let mut pixels = Pixels { width, height, alpha: true, data: (0..width * height).flat_map(pixel).collect() };
        inks_to_light(&mut pixels, Inks::Plain);
        return RgbImage::from_raw(width, height, pixels.data).expect("three samples a pixel");
    }
    RgbImage::from_fn(width, height, |x, y| {
        let (luma, blue, red) = match components {
            1 => (level(0, x, y), 0.0, 0.0),
            _ => (level(0, x, y), level(1, x, y) - 128.0, level(2, x, y) - 128.0),
        };
        let rgb = [luma + 1.402 * red, luma - 0.344_136 * blue - 0.714_136 * red, luma + 1.772 * blue];
        image::Rgb(rgb.map(|level| level.round().clamp(0.0, 255.0) as u8))
    })
}

/// Writes a sequential file with factors of one and the default Huffman tables.
pub(super) fn write(layout: &Layout<'_>) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    file.extend([1; 64]);
    let mut tables = Vec::new();
    for (kind, class) in [(Kind::Direct, 0), (Kind::Alternating, 0x10)] {
        let usual = usual(kind, 0).expect("there is one");
        tables.push(class);
        tables.extend(usual.counts);
        tables.extend(usual.symbols);
    }
    file.extend([0xff, 0xc4]);
    file.extend((tables.len() as u16 + 2).to_be_bytes());
    file.extend(tables);
    file.extend([0xff, 0xdd, 0, 4]);
    file.extend(layout.interval.to_be_bytes());
    let count = layout.factors.len() as u8;
    file.extend([0xff, 0xc0, 0, 8 + 3 * count, 8]);
    file.extend((layout.height as u16).to_be_bytes());
    file.extend((layout.width as u16).to_be_bytes());
    file.push(count);
    for (index, factor) in layout.factors.iter().enumerate() {
        file.extend([index as u8 + 1, factor.0 << 4 | factor.1, 0]);
    }
    let all: Vec<usize> = (0..layout.factors.len()).collect();
    let scans: Vec<&[usize]> = if layout.interleaved { vec![&all] } else { all.chunks(1).collect() };
    for components in scans {
        let count = components.len() as u8;
        file.extend([0xff, 0xda, 0, 6 + 2 * count, count]);
        components.iter().for_each(|index| file.extend([*index as u8 + 1, 0]));
        file.extend([0, 63, 0]);
        scan(layout, components, &mut file);
    }
    file.extend([0xff, 0xd9]);
    file
}

fn scan(layout: &Layout<'_>, components: &[usize], file: &mut Vec<u8>) {
    // A single component has no sampling factors.
    let factors: Vec<(u32, u32)> =
        layout.factors.iter().map(|factor| (u32::from(factor.0), u32::from(factor.1))).collect();
    let factors = if factors.len() == 1 { vec![(1, 1)] } else { factors };
    let most = factors.iter().fold((1, 1), |most, factor| (most.0.max(factor.0), most.1.max(factor.1)));
    let samples = |index: usize| {
        ((layout.width * factors[index].0).div_ceil(most.0), (layout.height * factors[index].1).div_ceil(most.1))
    };
    let units = match components {
        [only] => (samples(*only).0.div_ceil(8), samples(*only).1.div_ceil(8)),
        _ => (layout.width.div_ceil(8 * most.0), layout.height.div_ceil(8 * most.1)),
    };
    let mut writer = BitWriter::default();
    let mut means = [0; 4];
    for unit in 0..units.0 * units.1 {
        if layout.interval > 0 && unit > 0 && unit % u32::from(layout.interval) == 0 {
            file.extend(writer.finish());
            file.extend([0xff, 0xd0 + (unit / u32::from(layout.interval) - 1) as u8 % 8]);
            means = [0; 4];
        }
        for index in components {
            let blocks = if components.len() == 1 { (1, 1) } else { factors[*index] };
            for block in 0..blocks.0 * blocks.1 {
                let across = unit % units.0 * blocks.0 + block % blocks.0;
                let down = unit / units.0 * blocks.1 + block / blocks.0;
                let scale = (
                    f64::from(most.0) / f64::from(factors[*index].0 * layout.width),
                    f64::from(most.1) / f64::from(factors[*index].1 * layout.height),
                );
                writer.block(*index, (across, down), scale, &mut means[*index]);
            }
        }
    }
    file.extend(writer.finish());
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    bits: u32,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.bits = self.bits << 1 | (value >> bit & 1);
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(self.bits as u8);
                if self.bits == 0xff {
                    self.bytes.push(0);
                }
                (self.bits, self.count) = (0, 0);
            }
        }
    }

    fn finish(&mut self) -> Vec<u8> {
        if self.count > 0 {
            self.put(0xff, 8 - self.count);
        }
        std::mem::take(&mut self.bytes)
    }

    fn code(&mut self, kind: Kind, symbol: u8) {
        let usual = usual(kind, 0).expect("there is one");
        let (mut code, mut place) = (0, 0);
        for (length, count) in (1..).zip(usual.counts) {
            for _ in 0..*count {
                if usual.symbols[place] == symbol {
                    return self.put(code, length);
                }
                (code, place) = (code + 1, place + 1);
            }
            code <<= 1;
        }
        panic!("the usual table has no {symbol:#x}");
    }

    fn number(&mut self, kind: Kind, run: u8, value: i32) {
        let size = 32 - value.unsigned_abs().leading_zeros();
        self.code(kind, run << 4 | size as u8);
        let bits = if value < 0 { value - 1 } else { value };
        self.put(bits as u32, size);
    }

    fn block(&mut self, component: usize, (across, down): (u32, u32), scale: (f64, f64), mean: &mut i32) {
        let level = |x: usize, y: usize| {
            let x = (f64::from(8 * across) + x as f64 + 0.5) * scale.0;
            let y = (f64::from(8 * down) + y as f64 + 0.5) * scale.1;
            sample(component, x.min(1.0), y.min(1.0)) - 128.0
        };
        let wave = |at: usize, frequency: usize| {
            let norm = if frequency == 0 { FRAC_1_SQRT_2 } else { 1.0 };
            norm * ((2 * at + 1) as f64 * frequency as f64 * PI / 16.0).cos()
        };
        let coefficient = |place: u8| {
            let (u, v) = (usize::from(place % 8), usize::from(place / 8));
            let sum: f64 = (0..64).map(|at| level(at % 8, at / 8) * wave(at % 8, u) * wave(at / 8, v)).sum();
            (sum / 4.0).round() as i32
        };
        let coefficients = ZIGZAG.map(coefficient);
        self.number(Kind::Direct, 0, coefficients[0] - *mean);
        *mean = coefficients[0];
        let mut run = 0;
        for value in &coefficients[1..] {
            if *value == 0 {
                run += 1;
                continue;
            }
            while run > 15 {
                self.code(Kind::Alternating, 0xf0);
                run -= 16;
            }
            self.number(Kind::Alternating, run, *value);
            run = 0;
        }
        if run > 0 {
            self.code(Kind::Alternating, 0);
        }
    }
}
