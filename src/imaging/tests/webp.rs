//! Compares WebP decoding with another decoder and with the encoder's input.

use image::{ImageFormat, RgbImage, RgbaImage};

use super::fixtures::*;
use super::*;
use crate::imaging::decoded::Decoded;
use crate::imaging::header::webp::Chunks;
use crate::imaging::tuning::Tuning;

const TUNING: Tuning = Tuning { quality: 90, effort: Effort::Balanced };

/// Returns a photograph-like image: smooth, with an edge.
fn scene(width: u32, height: u32) -> RgbImage {
    let mut image = gradient(width, height);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        if (x / 24 + y / 24) % 2 == 0 {
            pixel.0 = [pixel.0[1], pixel.0[2], pixel.0[0]];
        }
    }
    image
}

fn with_alpha(image: &RgbImage) -> RgbaImage {
    RgbaImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue] = image.get_pixel(x, y).0;
        Rgba([red, green, blue, (x * 255 / image.width()) as u8])
    })
}

fn lossy(image: &DynamicImage) -> Vec<u8> {
    let (width, height, alpha) = (image.width(), image.height(), image.color().has_alpha());
    let data = if alpha { image.to_rgba8().into_raw() } else { image.to_rgb8().into_raw() };
    super::super::webp::encode(&Pixels { width, height, alpha, data }, TUNING).expect("encodes")
}

fn decoded(source: &[u8]) -> Decoded {
    let limits = Limits::default();
    let header = header::read(source, &limits).expect("its header is whole");
    decode::decode(source, &header, &limits, (header.width, header.height)).expect("decodes")
}

/// Returns a file of `chunks`.
fn riff(chunks: &[u8]) -> Vec<u8> {
    [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP", chunks].concat()
}

fn webp_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let padding: &[u8] = if body.len() % 2 == 1 { &[0] } else { &[] };
    [kind, &(body.len() as u32).to_le_bytes()[..], body, padding].concat()
}

/// Returns an animation of one image at `at`, twice, on a canvas of `canvas` pixels per side.
fn animation(still: &[u8], size: u32, at: u32, canvas: u32) -> Vec<u8> {
    let three = |value: u32| value.to_le_bytes()[..3].to_vec();
    let pixels: Vec<u8> = Chunks::new(still)
        .filter(|chunk| matches!(&chunk.kind, b"ALPH" | b"VP8 " | b"VP8L"))
        .flat_map(|chunk| webp_chunk(&chunk.kind, chunk.body))
        .collect();
    let place = [three(at / 2), three(at / 2), three(size - 1), three(size - 1), three(100), vec![2]].concat();
    let frame = webp_chunk(b"ANMF", &[place, pixels].concat());
    let head = webp_chunk(b"VP8X", &[vec![0x12, 0, 0, 0], three(canvas - 1), three(canvas - 1)].concat());
    riff(&[head, webp_chunk(b"ANIM", &[0; 6]), frame.clone(), frame].concat())
}

/// Returns the largest and the mean difference of samples.
fn differences(left: &[u8], right: &[u8]) -> (u8, f64) {
    assert_eq!(left.len(), right.len());
    let apart = left.iter().zip(right).map(|(left, right)| left.abs_diff(*right));
    (apart.clone().max().unwrap_or(0), apart.map(f64::from).sum::<f64>() / left.len() as f64)
}

#[test]
fn every_kind_of_webp_matches_another_decoder() {
    let image = scene(131, 77);
    let clear = DynamicImage::from(with_alpha(&image));
    let plain = DynamicImage::from(image);
    for (source, most) in [
        (lossy(&plain), 3),
        (lossy(&clear), 3),
        (file(plain.clone(), ImageFormat::WebP), 0),
        (file(clear.clone(), ImageFormat::WebP), 0),
    ] {
        let ours = decoded(&source);
        let theirs = image::load_from_memory_with_format(&source, ImageFormat::WebP).expect("decodes");
        let theirs = if ours.pixels.alpha { theirs.to_rgba8().into_raw() } else { theirs.to_rgb8().into_raw() };
        let (greatest, mean) = differences(&ours.pixels.data, &theirs);
        assert!(greatest <= most && mean < 1.0, "they differ by {greatest}, in the mean by {mean}");
        assert_eq!(ours.warning, None);
    }
}

#[test]
fn the_first_frame_is_positioned_on_a_transparent_canvas() {
    let image = scene(40, 40);
    for still in [lossy(&image.clone().into()), file(image.clone(), ImageFormat::WebP)] {
        let frame = decoded(&still).pixels;
        let moving = animation(&still, 40, 6, 64);
        let header = header::read(&moving, &Limits::default()).expect("it is whole");
        assert!(header.animated);
        let shown = decoded(&moving).pixels;
        assert_eq!((shown.width, shown.height, shown.alpha), (64, 64, true));
        for (at, pixel) in shown.data.chunks_exact(4).enumerate() {
            let (x, y) = (at % 64, at / 64);
            let inside = (6..46).contains(&x) && (6..46).contains(&y);
            let wanted = if inside {
                let from = ((y - 6) * 40 + x - 6) * frame.channels();
                [frame.data[from], frame.data[from + 1], frame.data[from + 2], 255]
            } else {
                [0; 4]
            };
            assert_eq!(pixel, wanted, "at {x}, {y}");
        }
    }
}

#[test]
fn a_truncated_webp_has_its_first_rows_and_gray() {
    {
        let source = lossy(&noise(256, 256, 5).into());
        let whole = decoded(&source).pixels.data;
        let cut = decoded(&source[..source.len() / 2]);
        assert_eq!(cut.warning, Some(Warning::Truncated));
        let rows = cut.pixels.data.chunks_exact(256 * 3).zip(whole.chunks_exact(256 * 3));
        let there = rows.take_while(|(cut, whole)| cut == whole).count();
        assert!((64..192).contains(&there), "{there} rows of 256 are there");
        assert!(cut.pixels.data[256 * 3 * 200..].iter().all(|sample| *sample == 0x80));
        let error = process(&source[..100], &as_it_is(), &Limits::default()).map(|_| ()).expect_err("almost no data");
        assert_eq!(error.code(), crate::code::ErrorCode::Undecodable);
    }
}

#[test]
fn dimensions_that_contradict_the_canvas_are_an_error() {
    let still = file(scene(40, 40), ImageFormat::WebP);
    let head = webp_chunk(b"VP8X", &[0, 0, 0, 0, 79, 0, 0, 79, 0, 0]);
    let source = riff(&[&head, &still[12..]].concat());
    let error = process(&source, &as_it_is(), &Limits::default()).expect_err("two sizes");
    assert_eq!(error.code(), crate::code::ErrorCode::Undecodable);
}
