//! Compares the decoder with another one and with itself at smaller scales, and tests malformed files.

mod writer;

use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use super::decoder::decode_to;
use crate::imaging::decoded::Decoded;
use crate::imaging::error::Error;
use crate::imaging::header;
use crate::imaging::limits::Limits;
use crate::imaging::tests::fixtures::{gradient, jpeg_in_three_scans, noise};
use crate::imaging::warning::Warning;
use writer::{Layout, write};

const END: [u8; 2] = [0xff, 0xd9];
const SIZES: [(u32, u32); 6] = [(1, 1), (2, 9), (8, 8), (17, 33), (33, 17), (70, 50)];

fn try_decoding(source: &[u8], block: u32) -> Result<Decoded, Error> {
    let limits = Limits::default();
    let header = header::read(source, &limits)?;
    decode_to(source, &header, &limits, block)
}

/// Decodes a valid file.
fn decoded(source: &[u8], block: u32) -> RgbImage {
    let decoded = try_decoding(source, block).expect("it is an image");
    assert_eq!(decoded.warning, None);
    let pixels = decoded.pixels;
    RgbImage::from_raw(pixels.width, pixels.height, pixels.data).expect("the pixels fill their frame")
}

fn by_the_second_decoder(source: &[u8]) -> RgbImage {
    let options = DecoderOptions::new_fast().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(source), options);
    let data = decoder.decode().expect("it is an image");
    let info = decoder.info().expect("it has a frame");
    RgbImage::from_raw(u32::from(info.width), u32::from(info.height), data).expect("the pixels fill their frame")
}

/// Returns the means of squares of `side` pixels.
fn boxed(image: &RgbImage, side: u32) -> RgbImage {
    RgbImage::from_fn(image.width().div_ceil(side), image.height().div_ceil(side), |x, y| {
        let (mut sum, mut count) = ([0; 3], 0);
        for y in y * side..((y + 1) * side).min(image.height()) {
            for x in x * side..((x + 1) * side).min(image.width()) {
                image.get_pixel(x, y).0.iter().zip(&mut sum).for_each(|(sample, sum)| *sum += u32::from(*sample));
                count += 1;
            }
        }
        image::Rgb(sum.map(|sum| ((sum + count / 2) / count) as u8))
    })
}

/// Returns the largest and the mean difference of samples.
fn differences(left: &RgbImage, right: &RgbImage) -> (u8, f64) {
    assert_eq!(left.dimensions(), right.dimensions());
    let each = || left.as_raw().iter().zip(right.as_raw()).map(|(left, right)| left.abs_diff(*right));
    (each().max().unwrap_or(0), each().map(f64::from).sum::<f64>() / left.as_raw().len() as f64)
}

fn encoded(image: &RgbImage, factor: SamplingFactor, progressive: bool, interval: u16) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 85);
    encoder.set_sampling_factor(factor);
    encoder.set_progressive(progressive);
    encoder.set_restart_interval(interval);
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder.encode(image.as_raw(), width, height, ColorType::Rgb).expect("encodes");
    file
}

const FACTORS: [SamplingFactor; 8] = [
    SamplingFactor::F_1_1,
    SamplingFactor::F_2_1,
    SamplingFactor::F_1_2,
    SamplingFactor::F_2_2,
    SamplingFactor::F_4_1,
    SamplingFactor::F_4_2,
    SamplingFactor::F_1_4,
    SamplingFactor::F_2_4,
];

/// Returns an image with edges and smooth parts.
fn drawing(width: u32, height: u32) -> RgbImage {
    let mut image = gradient(width, height);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        if (x / 5 + y / 7) % 3 == 0 {
            pixel.0 = [240, (x * 3) as u8, 30];
        }
    }
    image
}

#[test]
fn pixels_match_those_of_another_decoder() {
    for (width, height) in SIZES {
        for factor in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2] {
            // At the right edge the other decoder blends colors with block padding.
            if factor != SamplingFactor::F_1_1 && width < 16 {
                continue;
            }
            for progressive in [false, true] {
                let source = encoded(&drawing(width, height), factor, progressive, 0);
                let (most, mean) = differences(&decoded(&source, 8), &by_the_second_decoder(&source));
                // Both round in every step: by one in the transform, up to two in the color conversion.
                let most = if factor == SamplingFactor::F_1_1 { most } else { 0 };
                assert!(most <= 6 && mean <= 1.5, "{width} × {height}, {factor:?}, {progressive}: {most}, {mean}");
            }
        }
    }
}

#[test]
fn the_order_of_scans_does_not_change_pixels() {
    for (width, height) in SIZES {
        for factor in FACTORS {
            let image = drawing(width, height);
            let plain = decoded(&encoded(&image, factor, false, 0), 8);
            for (progressive, interval) in [(false, 1), (false, 3), (true, 0), (true, 2)] {
                let other = decoded(&encoded(&image, factor, progressive, interval), 8);
                assert_eq!(
                    differences(&plain, &other).0,
                    0,
                    "{width} × {height}, {factor:?}, {progressive}, {interval}"
                );
            }
        }
    }
}

#[test]
fn a_reduced_decode_looks_like_a_downscaled_full_decode() {
    for (width, height) in [(1, 1), (9, 2), (17, 33), (64, 64), (150, 94)] {
        let image = gradient(width, height);
        let is_smooth = width.min(height) > 64;
        let mut sources: Vec<_> = FACTORS.iter().map(|factor| encoded(&image, *factor, false, 0)).collect();
        sources.extend(FACTORS.iter().map(|factor| encoded(&image, *factor, true, 0)));
        sources.push(jpeg_in_three_scans(&image));
        for (number, source) in sources.iter().enumerate() {
            // Chroma at a quarter of the resolution is as coarse in a reduced decode.
            let most_mean = if number % 8 >= 4 { 12.0 } else { 5.0 };
            let whole = decoded(source, 8);
            for (block, side) in [(4, 2), (2, 4), (1, 8)] {
                let (most, mean) = differences(&decoded(source, block), &boxed(&whole, side));
                // At the right and bottom edges the box has fewer pixels than the block, and small gradients are steep.
                let is_like = !is_smooth || (mean <= most_mean && most <= 48);
                assert!(is_like, "{width} × {height}, file {number}, {block}: {most}, {mean}");
            }
        }
    }
}

#[test]
fn every_sampling_factor_is_decoded_interleaved_or_not() {
    let layouts: [&[(u8, u8)]; 9] = [
        &[(1, 1)],
        &[(2, 2)],
        &[(3, 1), (1, 1), (1, 1)],
        &[(1, 2), (2, 1), (1, 1)],
        &[(3, 2), (2, 1), (1, 2)],
        &[(4, 4), (1, 1), (2, 2)],
        &[(2, 2), (1, 1), (2, 2)],
        &[(1, 1), (2, 2), (1, 1)],
        &[(1, 1), (1, 1), (1, 1), (1, 1)],
    ];
    for factors in layouts {
        for (interleaved, interval) in [(true, 0), (true, 2), (false, 0), (false, 3)] {
            for (width, height) in [(1, 1), (17, 33), (50, 41)] {
                let source = write(&Layout { width, height, factors, interleaved, interval });
                let read = decoded(&source, 8);
                let shown = writer::image(width, height, factors.len());
                let (most, mean) = differences(&read, &shown);
                // Chroma at a half, a third or a quarter of the resolution changes a smooth image this much.
                assert!(
                    width == 1 || mean <= 8.0,
                    "{factors:?}, {interleaved}, {interval}, {width} × {height}: {most}, {mean}"
                );
                for block in [1, 2, 4] {
                    let (most, mean) = differences(&decoded(&source, block), &boxed(&read, 8 / block));
                    // Blocks at the edges of a small image contain more than the image shows.
                    let is_like = width < 50 || mean <= 10.0;
                    assert!(is_like, "{factors:?}, {width} × {height} to {block}: {most}, {mean}");
                }
            }
        }
    }
}

#[test]
fn components_named_r_g_b_are_not_transformed() {
    let layout = Layout { width: 24, height: 16, factors: &[(1, 1); 3], interleaved: true, interval: 0 };
    let mut source = write(&layout);
    let frame = source.windows(2).position(|two| two == [0xff, 0xc0]).expect("it has a frame");
    let scan = source.windows(2).position(|two| two == [0xff, 0xda]).expect("it has a scan");
    for (number, name) in b"RGB".iter().enumerate() {
        source[frame + 10 + 3 * number] = *name;
        source[scan + 5 + 2 * number] = *name;
    }
    let pixel = decoded(&source, 8).get_pixel(12, 8).0;
    let samples = [0, 1, 2].map(|component| writer::sample(component, 12.0 / 24.0, 8.0 / 16.0).round() as u8);
    assert!(pixel.iter().zip(samples).all(|(read, written)| read.abs_diff(written) <= 6), "{pixel:?}, {samples:?}");
}

#[test]
fn stray_bytes_between_segments_are_ignored() {
    let source = encoded(&drawing(64, 48), SamplingFactor::F_2_2, false, 0);
    let scan = source.windows(2).position(|two| two == [0xff, 0xda]).expect("it has a scan");
    // Before the scan's marker: fill bytes, then invalid bytes.
    let filled = [&source[..scan], &[0xff, 0xff, 0xff], &source[scan..]].concat();
    let strewn = [&source[..scan], &[1, 2, 3], &source[scan..], b"behind the end"].concat();
    for other in [filled, strewn] {
        assert_eq!(decoded(&other, 8), decoded(&source, 8));
    }
}

#[test]
fn a_file_that_lacks_only_its_end_marker_is_complete() {
    for progressive in [false, true] {
        let source = encoded(&drawing(64, 48), SamplingFactor::F_2_2, progressive, 0);
        assert_eq!(decoded(&source[..source.len() - 2], 8), decoded(&source, 8));
    }
}

#[test]
fn truncation_in_the_last_scan_is_detected_with_or_without_an_end_marker() {
    for progressive in [false, true] {
        let source = encoded(&noise(120, 90, 4), SamplingFactor::F_2_2, progressive, 0);
        let cut = &source[..source.len() - 60];
        let warning = |source: &[u8]| try_decoding(source, 8).expect("most of it is there").warning;
        assert_eq!(warning(cut), Some(Warning::Truncated), "progressive: {progressive}");
        assert_eq!(warning(&[cut, &END].concat()), Some(Warning::Damaged), "progressive: {progressive}");
    }
}

#[test]
fn missing_pixels_are_gray() {
    let source = encoded(&RgbImage::from_pixel(160, 160, image::Rgb([250, 30, 30])), SamplingFactor::F_1_1, false, 4);
    let markers: Vec<_> =
        source.windows(2).enumerate().filter(|(_, two)| two[0] == 0xff && two[1] & 0xf8 == 0xd0).collect();
    let cut = [&source[..markers[markers.len() / 2].0], &END].concat();
    let read = try_decoding(&cut, 8).expect("half of it is there");
    assert_eq!(read.warning, Some(Warning::Damaged));
    assert_eq!(read.pixels.data[3 * 160 * 159..][..3], [128; 3]);
    assert!(read.pixels.data[0] > 240);
}

#[test]
fn a_lost_restart_interval_does_not_shift_the_others() {
    let image = drawing(160, 96);
    let source = encoded(&image, SamplingFactor::F_1_1, false, 5);
    let whole = decoded(&source, 8);
    let markers: Vec<usize> =
        (0..source.len() - 1).filter(|at| source[*at] == 0xff && source[at + 1] & 0xf8 == 0xd0).collect();
    // Remove the third interval with the marker before it: 5 units of 8 × 8 pixels from the 11th on.
    let lost = [&source[..markers[1]], &source[markers[2]..]].concat();
    let read = try_decoding(&lost, 8).expect("nearly all of it is there");
    assert_eq!(read.warning, Some(Warning::Damaged));
    let differing = read.pixels.data.chunks(3).zip(whole.pixels()).filter(|(read, whole)| **read != whole.0).count();
    assert!(differing <= 5 * 64, "{differing} pixels differ");
}

#[test]
fn a_frame_without_data_is_an_error() {
    for progressive in [false, true] {
        let source = encoded(&noise(160, 160, 4), SamplingFactor::F_1_1, progressive, 0);
        let scan = source.windows(2).position(|two| two == [0xff, 0xda]).expect("it has a scan");
        for cut in [source[..scan + 16].to_vec(), [&source[..scan + 16], &END].concat()] {
            assert!(matches!(try_decoding(&cut, 8), Err(Error::Undecodable { .. })), "progressive: {progressive}");
        }
    }
}

#[test]
fn motion_jpeg_frames_are_decoded_with_default_tables() {
    let source =
        write(&Layout { width: 40, height: 24, factors: &[(2, 2), (1, 1), (1, 1)], interleaved: true, interval: 0 });
    let tables = source.windows(2).position(|two| two == [0xff, 0xc4]).expect("it has tables");
    let length = usize::from(u16::from_be_bytes([source[tables + 2], source[tables + 3]]));
    let without = [&source[..tables], &source[tables + 2 + length..]].concat();
    assert_eq!(decoded(&without, 8), decoded(&source, 8));
}
