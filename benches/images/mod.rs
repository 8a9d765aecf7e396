//! Images that benchmarks draw.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// Returns an image that is costly for decoders and encoders: soft gradients, edges, and fine noise that differs by
/// region.
pub fn photograph(width: u16, height: u16) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    let mut noise = 0x2545_f491_u32;
    for y in 0..u32::from(height) {
        for x in 0..u32::from(width) {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            let (across, down) = (x as f32 / f32::from(width), y as f32 / f32::from(height));
            let grain = (noise % 17) as f32 * if (x / 500 + y / 500) % 2 == 0 { 1.0 } else { 0.25 };
            let shape = (across * 23.0).sin() * (down * 17.0).cos() * 60.0;
            let edge = if (across - 0.5).hypot(0.75 * (down - 0.5)) < 0.225 { 40.0 } else { 0.0 };
            pixels.push((90.0 + 80.0 * across + shape + grain) as u8);
            pixels.push((80.0 + 90.0 * down + shape / 2.0 + edge + grain) as u8);
            pixels.push((140.0 - 60.0 * across + edge - shape / 3.0 + grain) as u8);
        }
    }
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_optimized_huffman_tables(true);
    encoder.encode(&pixels, width, height, ColorType::Rgb).expect("the sides are below 65,536 pixels");
    file
}
