//! Throughput of the imaging pipeline: a photograph-like JPEG of 12 megapixels through the default presets, and into
//! one rendition of 512 pixels. The image is always the same.

#[path = "images/mod.rs"]
mod images;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pm::imaging::{Effort, Fit, Limits, OutputFormat, Preset, Size, default_presets, process};

use images::photograph;

fn presets(criterion: &mut Criterion) {
    let source = photograph(4_000, 3_000);
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
            bencher.iter(|| process(black_box(&source), presets, &limits).expect("it is a whole image"));
        });
    }
    group.finish();
}

criterion_group!(benches, presets);
criterion_main!(benches);
