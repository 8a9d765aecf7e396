//! Compares pixels with another decoder's: `expected.tsv`, written by `scripts/expectations`, has Pillow's view of
//! every fixture and rendition. All images go through `probe` and `process`, like uploads.

use std::collections::{BTreeMap, BTreeSet};

use image::{ImageFormat, RgbaImage};

use super::fixtures::collection::{Fixture, Tolerance, all};
use super::fixtures::{Writing, as_it_is, jpeg_with, png_writer, preset, scene};
use super::{
    Fit, Focus, Limits, OutputFormat, Preset, Processed, Rendered, RenditionFormat, Size, default_presets, probe,
    process,
};

/// Cells of the grid, across and down.
const CELLS: u32 = 16;

/// Another decoder's result: dimensions, and red, green, blue and alpha of every cell.
struct Expected {
    width: u32,
    height: u32,
    samples: Vec<u8>,
}

/// Returns the lines of `expected.tsv` by name. Cells of an opaque image have six digits, of a transparent one eight.
fn expectations() -> BTreeMap<&'static str, Expected> {
    let lines = include_str!("expected.tsv").lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let [name, width, height, grid] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("a line of {line}") };
        let bytes = hex::decode(grid).expect("the grid is hexadecimal");
        let is_opaque = bytes.len() == (3 * CELLS * CELLS) as usize;
        let samples = match is_opaque {
            true => bytes.chunks_exact(3).flat_map(|cell| [cell[0], cell[1], cell[2], 255]).collect(),
            false => bytes,
        };
        let side = |text: &str| text.parse().expect("a side is a number");
        (name, Expected { width: side(width), height: side(height), samples })
    });
    let found: Vec<_> = parsed.collect();
    let count = found.len();
    let by_name: BTreeMap<_, _> = found.into_iter().collect();
    assert_eq!(by_name.len(), count, "two expectations have one name");
    by_name
}

/// Returns the mean color and alpha of each cell, colors weighted by alpha; black where fully transparent.
fn means(image: &RgbaImage) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let mut cells = Vec::new();
    for cell in 0..CELLS * CELLS {
        let (column, row) = (cell % CELLS, cell / CELLS);
        let (mut sums, mut alphas, mut count) = ([0_u64; 3], 0_u64, 0_u64);
        for y in row * height / CELLS..(row + 1) * height / CELLS {
            for x in column * width / CELLS..(column + 1) * width / CELLS {
                let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u64::from);
                [red, green, blue].iter().zip(&mut sums).for_each(|(sample, sum)| *sum += sample * alpha);
                alphas += alpha;
                count += 1;
            }
        }
        let rounded = |sum: u64, weight: u64| if weight == 0 { 0 } else { ((2 * sum + weight) / (2 * weight)) as u8 };
        cells.extend(sums.map(|sum| rounded(sum, alphas)));
        cells.push(rounded(alphas, count));
    }
    cells
}

/// Returns the pixel in the center of each cell; black where fully transparent.
fn points(image: &RgbaImage) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let middle = |cell: u32, side: u32| (2 * cell + 1) * side / (2 * CELLS);
    let point = |cell: u32| image.get_pixel(middle(cell % CELLS, width), middle(cell / CELLS, height)).0;
    (0..CELLS * CELLS).map(point).flat_map(|pixel| if pixel[3] == 0 { [0; 4] } else { pixel }).collect()
}

/// Returns how the samples differ from the expected ones, if they do.
fn complaint(name: &str, found: &[u8], size: (u32, u32), expected: &Expected, tolerance: Tolerance) -> Option<String> {
    if size != (expected.width, expected.height) {
        return Some(format!("{name}: {size:?} instead of {:?}", (expected.width, expected.height)));
    }
    // The precision of a color is limited by its alpha.
    let visible =
        |at: usize| if at % 4 == 3 { 255 } else { expected.samples[at / 4 * 4 + 3].min(found[at / 4 * 4 + 3]) };
    let distance = |at: usize| u32::from(found[at].abs_diff(expected.samples[at])) * u32::from(visible(at)) / 255;
    let distances: Vec<u32> = (0..found.len()).map(distance).collect();
    let mean = f64::from(distances.iter().sum::<u32>()) / distances.len() as f64;
    let (worst, most) = distances.iter().copied().enumerate().max_by_key(|(_, distance)| *distance).unwrap_or_default();
    let cell = worst / 4;
    (mean > tolerance.mean || most > u32::from(tolerance.most)).then(|| {
        let pixel = |samples: &[u8]| format!("{:?}", &samples[cell * 4..cell * 4 + 4]);
        let (is, wanted) = (pixel(found), pixel(&expected.samples));
        let (column, row) = (cell as u32 % CELLS, cell as u32 / CELLS);
        format!("{name}: mean {mean:.2}, most {most}: {is} instead of {wanted} in column {column} of row {row}")
    })
}

fn run(source: &[u8], presets: &[Preset]) -> Processed {
    process(source, presets, &Limits::default()).expect("the image is whole")
}

/// Returns `source` padded so that its size does not limit renditions.
fn roomy(source: &[u8], pixels: u32) -> Vec<u8> {
    let mut padded = source.to_vec();
    padded.resize(source.len() + 5 * pixels as usize + 10_000, 0);
    padded
}

/// Returns the rendition at full size, decoded with an independent PNG decoder.
fn shown(source: &[u8]) -> RgbaImage {
    let probed = probe(source, &Limits::default()).expect("its headers are whole");
    let processed = run(&roomy(source, probed.width * probed.height), &as_it_is());
    assert_eq!((probed.width, probed.height), (processed.width, processed.height));
    assert_eq!(processed.renditions[0].format, RenditionFormat::Output(OutputFormat::Png));
    image::load_from_memory_with_format(&processed.renditions[0].bytes, ImageFormat::Png).expect("a PNG").to_rgba8()
}

const PHOTOGRAPHS: [&str; 4] = ["photograph.jpg", "progressive.jpg", "plain.png", "clear.png"];

/// Returns the images that renditions are made from.
fn photographs() -> Vec<(&'static str, Vec<u8>)> {
    let (width, height) = (2_209, 1_409);
    let photograph = scene::colors(width, height);
    let samples = |bytes: &[u8]| bytes.iter().map(|sample| u16::from(*sample)).collect::<Vec<_>>();
    let (width, height) = (1_203, 809);
    let plain = samples(scene::colors(width, height).as_raw());
    let plain = png_writer::write(&plain, &png_writer::Form::new(width, height, 8, 2));
    let (width, height) = (701, 467);
    let clear = samples(scene::transparent(width, height).as_raw());
    let clear = png_writer::write(&clear, &png_writer::Form::new(width, height, 8, 6));
    let progressive = Writing { progressive: true, ..Writing::default() };
    let files = [jpeg_with(&photograph, Writing::default()), jpeg_with(&photograph, progressive), plain, clear];
    PHOTOGRAPHS.into_iter().zip(files).collect()
}

/// Returns the presets: the defaults, two crops and one box.
fn presets() -> Vec<Preset> {
    let named = |name: &str, size, fit, format| Preset { name: name.to_owned(), ..preset(size, fit, format) };
    let mut presets = default_presets();
    presets.extend([
        named("cover", Size::Box { width: 300, height: 300 }, Fit::Cover(Focus::CENTER), OutputFormat::Png),
        named("tall", Size::Box { width: 90, height: 400 }, Fit::Cover(Focus::CENTER), OutputFormat::Jpeg),
        named("box", Size::Box { width: 640, height: 200 }, Fit::Contain, OutputFormat::Png),
    ]);
    presets
}

/// Returns the name of a rendition's expectation.
fn rendition_name(preset: &str, source: &str) -> String {
    format!("{preset} of {source}")
}

/// Returns a rendition's pixels. Formats other than PNG are decoded by the pipeline, which other tests verify.
fn pixels_of(rendered: &Rendered) -> RgbaImage {
    match rendered.format {
        RenditionFormat::Output(OutputFormat::Png) => {
            image::load_from_memory_with_format(&rendered.bytes, ImageFormat::Png).expect("a PNG").to_rgba8()
        }
        _ => shown(&rendered.bytes),
    }
}

#[test]
fn every_fixture_matches_another_decoder() {
    let expected = expectations();
    let complaints: Vec<String> = all()
        .iter()
        .filter_map(|Fixture { name, bytes, tolerance }| {
            let image = shown(bytes);
            let expected = expected.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no expectation"));
            complaint(name, &means(&image), image.dimensions(), expected, *tolerance)
        })
        .collect();
    assert!(complaints.is_empty(), "{} differ:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_rendition_matches_another_program() {
    let expected = expectations();
    let mut complaints = Vec::new();
    for (source_name, source) in photographs() {
        let pixels =
            probe(&source, &Limits::default()).map(|probed| probed.width * probed.height).expect("it is whole");
        for rendered in run(&roomy(&source, pixels), &presets()).renditions {
            let name = rendition_name(&rendered.preset, source_name);
            let expected = expected.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no expectation"));
            let image = pixels_of(&rendered);
            assert_eq!(image.dimensions(), (rendered.width, rendered.height));
            let is_lossy =
                source_name.ends_with(".jpg") || rendered.format != RenditionFormat::Output(OutputFormat::Png);
            let tolerance = if is_lossy { Tolerance { mean: 2.0, most: 24 } } else { Tolerance { mean: 0.5, most: 6 } };
            complaints.extend(complaint(&name, &points(&image), image.dimensions(), expected, tolerance));
        }
    }
    assert!(complaints.is_empty(), "{} differ:\n{}", complaints.len(), complaints.join("\n"));
}

/// Returns a line of input for the other decoder: the expectation's name, the file, and for a rendition its size, fit
/// and format.
fn assignment(source: &str, preset: &Preset) -> (String, String) {
    let (width, height) = match preset.size {
        Size::LongestEdge(edge) => (edge, edge),
        Size::Box { width, height } => (width, height),
    };
    let fit = match preset.fit {
        Fit::Contain => "contain",
        Fit::Cover(_) => "cover",
        Fit::Fill => "fill",
    };
    let (name, format) = (rendition_name(&preset.name, source), preset.formats[0].as_str());
    let line = format!("{name}\t{source}\t{width}\t{height}\t{fit}\t{format}\n");
    (name, line)
}

/// `scripts/expectations` sets `PM_FIXTURES` to the output folder.
#[test]
fn every_expectation_has_a_fixture() {
    let (fixtures, photographs) = (all(), photographs());
    let fixture_lines = fixtures.iter().map(|Fixture { name, .. }| (name.clone(), format!("{name}\t{name}\t\t\t\t\n")));
    let presets = presets();
    let rendition_lines =
        photographs.iter().flat_map(|(source, _)| presets.iter().map(move |preset| assignment(source, preset)));
    let (made, lines): (Vec<String>, Vec<String>) = fixture_lines.chain(rendition_lines).unzip();
    if let Some(folder) = std::env::var_os("PM_FIXTURES").map(std::path::PathBuf::from) {
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("the folder takes files");
        fixtures.iter().for_each(|fixture| write(&fixture.name, &fixture.bytes));
        photographs.iter().for_each(|(source, bytes)| write(source, bytes));
        write("list.tsv", lines.concat().as_bytes());
    }
    let names: BTreeSet<&str> = made.iter().map(String::as_str).collect();
    assert_eq!(names.len(), made.len(), "two fixtures have one name");
    assert_eq!(names, expectations().into_keys().collect());
}

#[test]
fn the_same_image_looks_the_same_in_all_formats() {
    let scene = scene::scene();
    for Fixture { name, bytes, .. } in all() {
        let without_loss = [
            "colours-8.png",
            "colours-16.png",
            "interlaced-colours-8.png",
            "lossless.webp",
            "24.bmp",
            "24-top-down.bmp",
            "32.bmp",
            "colours-8.tif",
            "colours-16.tif",
            "deflate.tif",
            "deflate-differences.tif",
            "lzw.tif",
            "lzw-differences.tif",
            "packbits.tif",
        ];
        let with_loss = [
            "baseline-444.jpg",
            "three-scans-444.jpg",
            "restarts-444.jpg",
            "progressive-444.jpg",
            "light-without-luma.jpg",
        ];
        let most = match name.as_str() {
            name if without_loss.contains(&name) || name.starts_with("orientation-") && !name.ends_with(".jpg") => 0,
            name if with_loss.contains(&name) => 6,
            _ => continue,
        };
        let image = shown(&bytes);
        assert_eq!(image.dimensions(), scene.dimensions(), "{name}");
        for (x, y, pixel) in image.enumerate_pixels() {
            let wanted = scene.get_pixel(x, y).0;
            let is_near = pixel.0.iter().zip(wanted).all(|(sample, wanted)| sample.abs_diff(wanted) <= most);
            assert!(is_near && pixel.0[3] == 255, "{name}: {pixel:?} instead of {wanted:?} at {x}, {y}");
        }
    }
}

#[test]
fn an_edge_to_transparent_black_has_no_dark_fringe() {
    // White next to transparent pixels whose hidden color is black: composed on white, no black may show.
    let side = 400;
    let is_shown = |x: u32, y: u32| (x as i32 - 201).pow(2) + (y as i32 - 187).pow(2) < 130 * 130;
    let pixel = |at: u32| if is_shown(at % side, at / side) { [255; 4] } else { [0; 4] };
    let samples: Vec<u16> = (0..side * side).flat_map(pixel).collect();
    let source = png_writer::write(&samples, &png_writer::Form::new(side, side, 8, 6));
    for format in [OutputFormat::Png, OutputFormat::Webp, OutputFormat::Jpeg] {
        let presets = [preset(Size::LongestEdge(97), Fit::Contain, format)];
        let image = pixels_of(&run(&roomy(&source, side * side), &presets).renditions[0]);
        for (x, y, pixel) in image.enumerate_pixels() {
            let alpha = u32::from(pixel.0[3]);
            let on_white = |sample: u8| (u32::from(sample) * alpha + 255 * (255 - alpha)) / 255;
            let darkest = pixel.0[..3].iter().map(|sample| on_white(*sample)).min().unwrap_or_default();
            assert!(darkest >= 250, "{format:?}: {pixel:?} at {x}, {y}");
        }
    }
}
