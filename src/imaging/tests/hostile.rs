//! Tests damaged and malicious files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{ImageFormat, RgbImage};
use proptest::prelude::*;

use super::fixtures::*;
use super::*;
use crate::code::ErrorCode;

fn refusal(source: &[u8]) -> Error {
    let limits = Limits::default();
    let error = probe(source, &limits).expect_err("it is refused before it is decoded");
    assert_eq!(process(source, &default_presets(), &limits).map(|_| ()), Err(error.clone()));
    error
}

#[test]
fn a_truncated_image_is_decoded_with_a_warning() {
    let image = noise(256, 256, 5);
    let progressive = Writing { progressive: true, ..Writing::default() };
    for source in [
        jpeg(&image),
        jpeg_with(&image, progressive),
        file(image.clone(), ImageFormat::Png),
        file(image.clone(), ImageFormat::Bmp),
    ] {
        let cut = &source[..source.len() / 2];
        assert!(probe(cut, &Limits::default()).expect("its header is whole").truncated);
        let processed = run(cut, &as_it_is());
        assert_eq!(processed.warnings, [Warning::Truncated], "{:?}", processed.format);
        assert_eq!((processed.width, processed.height), (256, 256));
    }
}

#[test]
fn an_image_with_almost_no_data_is_damaged() {
    let image = noise(256, 256, 5);
    for source in [jpeg(&image), file(image.clone(), ImageFormat::Png), file(image, ImageFormat::Bmp)] {
        for cut in [20, 60, 200] {
            let error = process(&source[..cut], &as_it_is(), &Limits::default()).expect_err("there are no pixels");
            assert_eq!(error.code(), ErrorCode::Undecodable, "{error}");
        }
    }
}

#[test]
fn a_jpeg_with_an_end_marker_but_half_its_data_has_a_warning() {
    for progressive in [false, true] {
        let source = jpeg_with(&noise(256, 256, 5), Writing { progressive, ..Writing::default() });
        let cut = [&source[..source.len() / 2], &[0xff, 0xd9]].concat();
        assert_eq!(run(&cut, &as_it_is()).warnings, [Warning::Damaged], "progressive: {progressive}");
    }
}

#[test]
fn a_complete_jpeg_with_few_bits_has_no_warning() {
    for (width, height) in [(1, 1), (1, 3_000), (8, 3_000), (16, 2_000), (33, 2_000), (64, 900), (2_000, 9)] {
        for progressive in [false, true] {
            let flat = RgbImage::from_pixel(width, height, image::Rgb([128, 128, 128]));
            let mut source = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut source, 50);
            encoder.set_optimized_huffman_tables(true);
            encoder.set_progressive(progressive);
            let grays: Vec<u8> = flat.as_raw().iter().step_by(3).copied().collect();
            encoder.encode(&grays, width as u16, height as u16, ColorType::Luma).expect("encodes");
            for source in [source, jpeg_with(&flat, Writing { progressive, ..Writing::default() })] {
                assert_eq!(run(&source, &[]).warnings, [], "{width} × {height}, progressive: {progressive}");
            }
        }
    }
}

#[test]
fn dimensions_over_the_limits_are_refused_without_decoding() {
    let header = |width: u32, height: u32| {
        let ihdr = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &ihdr), &chunk(b"IDAT", &[0; 9]), &chunk(b"IEND", &[])].concat()
    };
    let error = refusal(&header(50_000, 50_000));
    assert_eq!(error.code(), ErrorCode::TooManyPixels);
    assert!(error.to_string().contains("2500 megapixels; the limit is 50"), "{error}");
    assert!(refusal(&header(20_000, 10)).to_string().contains("20000 × 10 pixels; the limit is 16384 pixels"));
    let mut small_frame = gif(4, 4, &[[1, 2, 3, 255]]);
    let frame = small_frame.iter().rposition(|byte| *byte == 0x2c).expect("a frame");
    small_frame[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    assert_eq!(refusal(&small_frame).code(), ErrorCode::TooManyPixels);
}

#[test]
fn a_decompression_bomb_in_a_profile_is_refused() {
    let mut packer = flate2::write::ZlibEncoder::new(b"bomb\0\0".to_vec(), flate2::Compression::fast());
    for _ in 0..300 {
        packer.write_all(&[0; 1 << 20]).expect("memory");
    }
    let bomb = chunk(b"iCCP", &packer.finish().expect("memory"));
    let source = png_with(&file(RgbImage::new(1, 1), ImageFormat::Png), &[bomb]);
    let error = refusal(&source);
    assert_eq!(error, Error::TooComplex(Excess::Profile { limit: 4 << 20 }));
    assert_eq!(error.code(), ErrorCode::TooComplex);
}

#[test]
fn a_decompression_bomb_in_a_text_chunk_is_not_decompressed() {
    let mut packer = flate2::write::ZlibEncoder::new(b"Comment\0\0".to_vec(), flate2::Compression::fast());
    for _ in 0..300 {
        packer.write_all(&[b' '; 1 << 20]).expect("memory");
    }
    let bomb = chunk(b"zTXt", &packer.finish().expect("memory"));
    let source = png_with(&file(RgbImage::new(8, 8), ImageFormat::Png), &[bomb]);
    assert_eq!(run(&source, &as_it_is()).warnings, []);
}

#[test]
fn too_many_scans_are_refused() {
    let source = jpeg_with(&gradient(64, 64), Writing { progressive: true, ..Writing::default() });
    let last = source.windows(2).rposition(|window| window == [0xff, 0xda]).expect("a scan");
    let scan = source[last..source.len() - 2].to_vec();
    let repeated = [&source[..source.len() - 2], &scan.repeat(2_000), &[0xff, 0xd9]].concat();
    let error = refusal(&repeated);
    assert!(error.to_string().contains("the limit for its size is 100"), "{error}");
    assert_eq!(error.code(), ErrorCode::TooComplex);
}

#[test]
fn an_image_over_the_memory_limit_is_refused() {
    let source = jpeg(&gradient(800, 600));
    let limits = Limits { max_memory: 9 << 20, ..Limits::default() };
    let error = probe(&source, &limits).expect_err("it costs more");
    assert_eq!(error.code(), ErrorCode::TooComplex);
    assert!(error.to_string().contains("the limit is 9 MiB"), "{error}");
}

#[test]
fn an_unsupported_file_is_named_in_the_error() {
    let named = |source: &[u8]| refusal(source).to_string();
    assert!(named(b"<!doctype html><title>404</title>").starts_with("The file is an HTML page;"));
    assert!(named(b"<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>").starts_with("The file is an SVG drawing;"));
    assert_eq!(refusal(b"").code(), ErrorCode::Empty);
}

/// Returns one small file per format, with metadata where possible.
fn samples() -> Vec<Vec<u8>> {
    let image = noise(24, 18, 11);
    let segments =
        vec![(1, [b"Exif\0\0".to_vec(), exif_block(6)].concat()), (2, b"ICC_PROFILE\0\x01\x01junk".to_vec())];
    vec![
        jpeg_with(&image, Writing { segments, ..Writing::default() }),
        jpeg_with(&image, Writing { progressive: true, ..Writing::default() }),
        png_with(&file(image.clone(), ImageFormat::Png), &[chunk(b"eXIf", &exif_block(3))]),
        file(image.clone(), ImageFormat::WebP),
        gif(24, 18, &[[1, 2, 3, 255], [4, 5, 6, 0]]),
        file(image.clone(), ImageFormat::Bmp),
        tiff(&image),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_probe_never_panics(
        which in 0_usize..7, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(), whole in any::<bool>(),
    ) {
        let mut source = samples().swap_remove(which);
        for (index, byte) in changes {
            let at = index.index(source.len());
            source[at] = byte;
        }
        if !whole {
            source.truncate(cut.index(source.len()));
        }
        // A panic here is not caught: the probe must never panic.
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        let probed = probe(&source, &limits);
        let processed = process(&source, &as_it_is(), &limits);
        if let Err(error) = probed {
            prop_assert_eq!(processed.map(|_| ()), Err(error));
        } else if let Err(error) = processed {
            prop_assert_ne!(error.code(), ErrorCode::Internal, "{}", error);
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("PM_CORPUS names a folder of images") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn every_corpus_file_gives_an_image_or_an_error_code() {
    let Some(corpus) = std::env::var_os("PM_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: PM_CORPUS is not set");
        return;
    };
    let presets = [preset(Size::LongestEdge(256), Fit::Contain, OutputFormat::Webp)];
    for path in [files_below(&corpus.join("edge")), files_below(&corpus.join("broken"))].concat() {
        let source = std::fs::read(&path).expect("reads");
        let start = Instant::now();
        match process(&source, &presets, &Limits::default()) {
            Ok(processed) => {
                let rendered = &processed.renditions[0];
                assert!(rendered.width.max(rendered.height) <= 256, "{}", path.display());
                let own_size = (rendered.width, rendered.height) == (processed.width, processed.height);
                // Scaling turns two colors into many, so small images may exceed a few hundred bytes.
                let most = if own_size { source.len() } else { source.len().max(2_000) };
                assert!(rendered.bytes.len() <= most, "{}", path.display());
            }
            Err(error) => assert_ne!(error.code(), ErrorCode::Internal, "{}: {error}", path.display()),
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{} took {:?}", path.display(), start.elapsed());
    }
}
