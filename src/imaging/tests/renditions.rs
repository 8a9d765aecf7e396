//! Compares each fit and format with a simple reference resize of the whole source.

use std::f64::consts::PI;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat, RgbImage, Rgba, RgbaImage};

use super::fixtures::*;
use super::*;

const EVERY_FIT: [Fit; 5] = [
    Fit::Contain,
    Fit::Fill,
    Fit::Cover(Focus::CENTER),
    Fit::Cover(Focus::from_thousandths(0, 1000).expect("a corner of the image")),
    Fit::Cover(Focus::from_thousandths(640, 310).expect("a point of the image")),
];

/// Returns smooth colors with edges, thin lines and circles, which reveal a bad resize.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (across, down) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let wave = (across * 40.0).sin() * (down * 25.0).cos() * 40.0;
        let round = (across - 0.6).hypot(down - 0.3) < 0.15;
        let line = x % 61 == 0 || y % 47 == 0;
        let sample = |base: f64| (base + wave + if round { 60.0 } else { 0.0 }).clamp(0.0, 255.0) as u8;
        image::Rgb(if line { [20, 30, 60] } else { [sample(190.0 * across), sample(170.0 * down), sample(120.0)] })
    })
}

/// Returns the scene in a disc on transparent black.
fn disc(width: u32, height: u32) -> RgbaImage {
    let scene = scene(width, height);
    RgbaImage::from_fn(width, height, |x, y| {
        let (across, down) = (f64::from(x) / f64::from(width) - 0.5, f64::from(y) / f64::from(height) - 0.5);
        let [red, green, blue] = scene.get_pixel(x, y).0;
        if across.hypot(down) < 0.4 { Rgba([red, green, blue, 255]) } else { Rgba([0; 4]) }
    })
}

fn lanczos3(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

/// Returns the weights of a line's samples for each of `count` outputs, which show `from..from + length`.
fn weights(samples: usize, from: f64, length: f64, count: usize) -> Vec<Vec<f64>> {
    let scale = length / count as f64;
    let line = |at: usize| {
        let center = from + (at as f64 + 0.5) * scale;
        let raw: Vec<f64> =
            (0..samples).map(|sample| lanczos3((sample as f64 + 0.5 - center) / scale.max(1.0))).collect();
        let sum: f64 = raw.iter().sum();
        raw.into_iter().map(|weight| weight / sum).collect()
    };
    (0..count).map(line).collect()
}

/// Resizes the crop `left, top, across, down` of `source` to `width` × `height` with premultiplied alpha.
fn reference(source: &RgbaImage, piece: (f64, f64, f64, f64), width: u32, height: u32) -> RgbaImage {
    let (left, top, across, down) = piece;
    let columns = weights(source.width() as usize, left, across, width as usize);
    let rows = weights(source.height() as usize, top, down, height as usize);
    let multiplied = |pixel: &Rgba<u8>| {
        let [red, green, blue, alpha] = pixel.0.map(f64::from);
        [red * alpha / 255.0, green * alpha / 255.0, blue * alpha / 255.0, alpha]
    };
    let sum = |terms: &mut dyn Iterator<Item = (f64, [f64; 4])>| {
        terms.fold([0.0; 4], |sum, (weight, pixel)| std::array::from_fn(|part| sum[part] + weight * pixel[part]))
    };
    let narrow: Vec<Vec<[f64; 4]>> = source
        .rows()
        .map(|row| {
            let row: Vec<_> = row.map(multiplied).collect();
            columns.iter().map(|column| sum(&mut column.iter().copied().zip(row.iter().copied()))).collect()
        })
        .collect();
    RgbaImage::from_fn(width, height, |x, y| {
        let column = narrow.iter().map(|row| row[x as usize]);
        let [red, green, blue, alpha] = sum(&mut rows[y as usize].iter().copied().zip(column));
        let sample =
            |sample: f64| if alpha < 0.5 { 0 } else { (sample * 255.0 / alpha).round().clamp(0.0, 255.0) as u8 };
        Rgba([sample(red), sample(green), sample(blue), alpha.round().clamp(0.0, 255.0) as u8])
    })
}

/// Returns the crop and size of a fit in a box smaller in both directions.
fn expected(size: (u32, u32), bounds: (u32, u32), fit: Fit) -> ((f64, f64, f64, f64), u32, u32) {
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let (across, down) = (f64::from(bounds.0) / width, f64::from(bounds.1) / height);
    match fit {
        Fit::Contain => {
            let scale = across.min(down);
            ((0.0, 0.0, width, height), (width * scale).round() as u32, (height * scale).round() as u32)
        }
        Fit::Fill => ((0.0, 0.0, width, height), bounds.0, bounds.1),
        Fit::Cover(focus) => {
            let scale = across.max(down);
            let piece = (f64::from(bounds.0) / scale, f64::from(bounds.1) / scale);
            let (focus_across, focus_down) = focus.shares();
            let start = |whole: f64, piece: f64, share: f64| (whole * share - piece / 2.0).max(0.0).min(whole - piece);
            let (left, top) = (start(width, piece.0, focus_across), start(height, piece.1, focus_down));
            ((left, top, piece.0, piece.1), bounds.0, bounds.1)
        }
    }
}

/// Returns mean and largest difference of samples, with premultiplied colors.
fn differences(left: &RgbaImage, right: &RgbaImage) -> (f64, u32) {
    assert_eq!(left.dimensions(), right.dimensions());
    let visible = |pixel: &Rgba<u8>| {
        let alpha = u32::from(pixel.0[3]);
        let [red, green, blue, _] = pixel.0.map(|sample| u32::from(sample) * alpha / 255);
        [red, green, blue, alpha]
    };
    let apart = left.pixels().zip(right.pixels()).flat_map(|(left, right)| {
        let (left, right) = (visible(left), visible(right));
        (0..4).map(move |part| left[part].abs_diff(right[part]))
    });
    let (sum, most) = apart.fold((0_u64, 0), |(sum, most), apart| (sum + u64::from(apart), most.max(apart)));
    (sum as f64 / (left.width() * left.height() * 4) as f64, most)
}

/// Returns a PNG of `image`, padded so that its size does not limit renditions.
fn roomy(image: impl Into<DynamicImage>) -> Vec<u8> {
    png_with(&file(image, ImageFormat::Png), &[chunk(b"tEXt", &vec![b'x'; 1 << 20])])
}

fn boxed(width: u32, height: u32, fit: Fit, format: OutputFormat) -> Preset {
    Preset { quality: 95, ..preset(Size::Box { width, height }, fit, format) }
}

#[test]
fn each_fit_matches_a_reference_resize() {
    for (width, height, bounds) in [(640, 420, (150, 150)), (300, 500, (211, 97))] {
        let source = roomy(scene(width, height));
        let whole = DynamicImage::ImageRgb8(scene(width, height)).to_rgba8();
        for fit in EVERY_FIT {
            let (piece, across, down) = expected((width, height), bounds, fit);
            let wanted = reference(&whole, piece, across, down);
            for (format, mean_most, largest) in [
                (OutputFormat::Png, 1.2, 40),
                (OutputFormat::WebpLossless, 1.2, 40),
                (OutputFormat::Jpeg, 3.0, 90),
                (OutputFormat::Webp, 4.0, 120),
            ] {
                // A crop begins at a whole pixel, so it may be half a pixel off the reference; thin lines show that.
                let (mean_most, largest) =
                    if matches!(fit, Fit::Cover(_)) { (mean_most + 3.0, largest + 60) } else { (mean_most, largest) };
                let made = run(&source, &[boxed(bounds.0, bounds.1, fit, format)]);
                let (mean, most) = differences(&pixels_of(&made.renditions[0]), &wanted);
                assert!(mean <= mean_most && most <= largest, "{fit:?} as {format:?}: mean {mean:.2}, most {most}");
            }
        }
    }
}

#[test]
fn transparent_edges_keep_their_brightness() {
    let source = roomy(disc(400, 300));
    let whole = disc(400, 300);
    for fit in EVERY_FIT {
        let (piece, across, down) = expected((400, 300), (120, 120), fit);
        let wanted = reference(&whole, piece, across, down);
        for (format, mean_most) in
            [(OutputFormat::Png, 1.5), (OutputFormat::WebpLossless, 1.5), (OutputFormat::Webp, 4.0)]
        {
            let made = pixels_of(&run(&source, &[boxed(120, 120, fit, format)]).renditions[0]);
            let (mean, _) = differences(&made, &wanted);
            assert!(mean <= mean_most, "{fit:?} as {format:?}: mean {mean:.2}");
        }
    }
}

#[test]
fn a_white_shape_on_transparency_has_no_dark_fringe() {
    let white = RgbaImage::from_fn(200, 200, |x, y| {
        if f64::from(x).hypot(f64::from(y)) < 150.0 { Rgba([255; 4]) } else { Rgba([0; 4]) }
    });
    let source = roomy(white);
    for format in [OutputFormat::Png, OutputFormat::WebpLossless, OutputFormat::Webp, OutputFormat::Jpeg] {
        let made = pixels_of(&run(&source, &[boxed(61, 61, Fit::Contain, format)]).renditions[0]);
        let darkest = made.pixels().filter(|pixel| pixel.0[3] > 40).flat_map(|pixel| pixel.0[..3].to_vec()).min();
        assert!(darkest >= Some(247), "{format:?}: {darkest:?}");
        let transparent = made.pixels().any(|pixel| pixel.0[3] == 0);
        assert_eq!(transparent, format != OutputFormat::Jpeg, "{format:?}");
    }
}

#[test]
fn the_focus_applies_to_the_upright_image() {
    // The red corner is at the lower left when upright; stored, it is rotated by a quarter turn.
    let stored =
        RgbImage::from_fn(90, 60, |x, y| image::Rgb(if x >= 60 && y >= 30 { [220, 10, 10] } else { [250, 250, 250] }));
    let exif = [b"Exif\0\0".to_vec(), exif_block(6)].concat();
    let source = jpeg_with(&stored, Writing { segments: vec![(1, exif)], ..Writing::default() });
    let shown = |name: &str| {
        let focus = Focus::named(name).expect("an edge");
        let made = run(&source, &[boxed(30, 30, Fit::Cover(focus), OutputFormat::Png)]);
        let pixels = pixels_of(&made.renditions[0]);
        pixels.pixels().filter(|pixel| is_near(pixel, [220, 10, 10], 40)).count()
    };
    let (top, center, bottom) = (shown("top"), shown("center"), shown("bottom"));
    assert!(top == 0 && center > 50 && bottom > center + 50, "{top}, {center}, {bottom}");
}

#[test]
fn fill_matches_both_sides_and_enlarges_neither() {
    let source = roomy(scene(200, 80));
    for (bounds, size) in
        [((100, 100), (100, 80)), ((50, 40), (50, 40)), ((500, 10), (200, 10)), ((900, 900), (200, 80))]
    {
        let made = run(&source, &[boxed(bounds.0, bounds.1, Fit::Fill, OutputFormat::Png)]);
        assert_eq!(pixels_of(&made.renditions[0]).dimensions(), size);
    }
}

#[test]
fn a_distorted_rendition_does_not_affect_the_others() {
    let source = roomy(scene(600, 400));
    let alone = boxed(90, 60, Fit::Contain, OutputFormat::Png);
    let squeezed = boxed(40, 300, Fit::Fill, OutputFormat::Png);
    let both = run(&source, &[squeezed, alone.clone()]);
    let (mean, _) = differences(&pixels_of(&both.renditions[1]), &pixels_of(&run(&source, &[alone]).renditions[0]));
    assert!(mean < 2.0, "differs by {mean}");
}

#[test]
fn more_effort_never_enlarges_lossless_renditions() {
    let source = roomy(scene(300, 200));
    for format in [OutputFormat::Png, OutputFormat::WebpLossless] {
        let bytes = |effort: Effort| {
            let preset = Preset { effort, ..boxed(200, 200, Fit::Contain, format) };
            run(&source, &[preset]).renditions[0].bytes.len()
        };
        let (fast, balanced, small) = (bytes(Effort::Fast), bytes(Effort::Balanced), bytes(Effort::Small));
        assert!(fast >= balanced && balanced >= small, "{format:?}: {fast}, {balanced}, {small}");
    }
}

#[test]
fn the_memory_estimate_depends_on_the_presets() {
    let source = jpeg(&scene(600, 400));
    let needed = |format| {
        memory_needed(&source, &[boxed(600, 400, Fit::Contain, format)], &Limits::default()).expect("within the limits")
    };
    assert!(needed(OutputFormat::Avif) > needed(OutputFormat::Webp));
    let limits = Limits { max_memory: needed(OutputFormat::Avif) - 1, ..Limits::default() };
    let avif = [boxed(600, 400, Fit::Contain, OutputFormat::Avif)];
    assert!(matches!(memory_needed(&source, &avif, &limits), Err(Error::TooComplex(_))));
    assert!(matches!(process(&source, &avif, &limits), Err(Error::TooComplex(_))));
}

fn every_format() -> Vec<Preset> {
    let formats = OutputFormat::ALL.into_iter().filter(|format| format.is_built_in());
    formats.map(|format| boxed(64, 48, Fit::Cover(Focus::CENTER), format)).chain(default_presets()).collect()
}

#[test]
fn concurrent_processing_gives_the_same_bytes() {
    let source = Arc::new(roomy(disc(300, 200)));
    let alone = run(&source, &every_format()).renditions;
    for threads in [1, 2, 4] {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let source = Arc::clone(&source);
                std::thread::spawn(move || run(&source, &every_format()).renditions)
            })
            .collect();
        for thread in running {
            assert!(thread.join().expect("it does not panic") == alone, "with {threads} threads");
        }
    }
}

#[cfg(feature = "avif")]
#[test]
fn an_avif_has_its_dimensions_and_alpha_only_if_needed() {
    for (source, alpha) in [(roomy(disc(300, 200)), true), (roomy(scene(300, 200)), false)] {
        for effort in [Effort::Fast, Effort::Balanced, Effort::Small] {
            let preset = Preset { effort, ..boxed(64, 64, Fit::Contain, OutputFormat::Avif) };
            let made = &run(&source, &[preset]).renditions[0];
            assert_eq!((made.format_name(), made.extension(), made.media_type()), ("avif", "avif", "image/avif"));
            let at = |part: &[u8]| made.bytes.windows(part.len()).position(|window| window == part);
            assert_eq!(made.bytes.get(4..12), Some(&b"ftypavif"[..]));
            // The dimensions follow four bytes of version and flags (ISO/IEC 23008-12, 6.5.3.2).
            let dimensions = at(b"ispe").expect("a property of every image") + 8;
            assert_eq!(made.bytes[dimensions..dimensions + 8], [0, 0, 0, 64, 0, 0, 0, 43]);
            assert_eq!(at(b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha").is_some(), alpha);
            assert_eq!(at(b"Exif"), None);
        }
    }
}

#[cfg(feature = "avif")]
#[test]
fn tiny_images_are_encoded_as_avif() {
    for (width, height) in [(1, 1), (2, 7), (17, 1)] {
        let source = roomy(scene(width, height));
        let made = run(&source, &[boxed(64, 64, Fit::Contain, OutputFormat::Avif)]);
        assert_eq!((made.renditions[0].width, made.renditions[0].height), (width, height));
        assert_eq!(made.renditions[0].format_name(), "avif");
    }
}
