//! How fast pictures go through: a photograph-like JPEG of 12 megapixels through the default presets, and into one
//! rendition of 512 pixels. The picture is made here, always the same one.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use pm::imaging::{Effort, Fit, Limits, OutputFormat, Preset, Size, default_presets, process};

const WIDTH: u16 = 4_000;
const HEIGHT: u16 = 3_000;

/// A picture with what costs decoders and encoders time: soft gradients, edges, and fine noise that differs by region.
fn photograph() -> Vec<u8> {
    let mut pixels = Vec::with_capacity(usize::from(WIDTH) * usize::from(HEIGHT) * 3);
    let mut noise = 0x2545_f491_u32;
    for y in 0..u32::from(HEIGHT) {
        for x in 0..u32::from(WIDTH) {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            let (across, down) = (x as f32 / 4_000.0, y as f32 / 3_000.0);
            let grain = (noise % 17) as f32 * if (x / 500 + y / 500) % 2 == 0 { 1.0 } else { 0.25 };
            let shape = (across * 23.0).sin() * (down * 17.0).cos() * 60.0;
            let edge = if (x as i32 - 2_000).pow(2) + (y as i32 - 1_500).pow(2) < 900 * 900 { 40.0 } else { 0.0 };
            pixels.push((90.0 + 80.0 * across + shape + grain) as u8);
            pixels.push((80.0 + 90.0 * down + shape / 2.0 + edge + grain) as u8);
            pixels.push((140.0 - 60.0 * across + edge - shape / 3.0 + grain) as u8);
        }
    }
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_optimized_huffman_tables(true);
    encoder.encode(&pixels, WIDTH, HEIGHT, ColorType::Rgb).expect("the sides are below 65,536 pixels");
    file
}

fn presets(criterion: &mut Criterion) {
    let source = photograph();
    let limits = Limits::default();
    let single = [Preset {
        name: "small".to_owned(),
        size: Size::LongestEdge(512),
        fit: Fit::Contain,
        formats: vec![OutputFormat::Jpeg],
        quality: 80,
        effort: Effort::Balanced,
    }];
    let mut group = criterion.benchmark_group("12 megapixels");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(10));
    let default = default_presets();
    for (name, presets) in [("default presets", default.as_slice()), ("one of 512 px", single.as_slice())] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| process(black_box(&source), presets, &limits).expect("it is a whole picture"));
        });
    }
    group.finish();
}

criterion_group!(benches, presets);
criterion_main!(benches);
