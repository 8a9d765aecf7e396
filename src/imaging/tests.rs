//! Tests the whole imaging pipeline.

mod corpus;
pub(super) mod fixtures;
mod hostile;
mod pixels;
mod renditions;
mod webp;

use image::{DynamicImage, ExtendedColorType, ImageFormat, RgbImage, Rgba, RgbaImage};
use jpeg_encoder::ColorType;

use super::header::exif::tests::block as exif_block;
use super::pixels::Pixels;
use super::*;
use fixtures::*;

fn run(source: &[u8], presets: &[Preset]) -> Processed {
    process(source, presets, &Limits::default()).expect("the image is whole")
}

/// Returns the pixels of a rendition, which are upright.
fn pixels_of(rendered: &Rendered) -> RgbaImage {
    let limits = Limits::default();
    let header = header::read(&rendered.bytes, &limits).expect("an image");
    let decoded = decode::decode(&rendered.bytes, &header, &limits, (header.width, header.height)).expect("decodes");
    assert_eq!(decoded.warning, None);
    let Pixels { width, height, alpha, data } = decoded.pixels;
    if alpha {
        RgbaImage::from_raw(width, height, data).expect("the pixels fill their frame")
    } else {
        DynamicImage::from(RgbImage::from_raw(width, height, data).expect("the pixels fill their frame")).to_rgba8()
    }
}

fn mean_difference(left: &RgbImage, right: &RgbImage) -> f64 {
    assert_eq!(left.dimensions(), right.dimensions());
    let sum: u64 = left.as_raw().iter().zip(right.as_raw()).map(|(l, r)| u64::from(l.abs_diff(*r))).sum();
    sum as f64 / left.as_raw().len() as f64
}

fn is_near(pixel: &Rgba<u8>, color: [u8; 3], distance: u8) -> bool {
    pixel.0.iter().zip(color).all(|(sample, wanted)| sample.abs_diff(wanted) <= distance)
}

#[test]
fn every_format_is_detected_by_content() {
    let image = gradient(120, 80);
    let cases = [
        (SourceFormat::Jpeg, jpeg(&image), 3.0),
        (SourceFormat::Jpeg, jpeg_with(&image, Writing { progressive: true, ..Writing::default() }), 3.0),
        (SourceFormat::Png, file(image.clone(), ImageFormat::Png), 0.0),
        (SourceFormat::Webp, file(image.clone(), ImageFormat::WebP), 0.0),
        (SourceFormat::Bmp, file(image.clone(), ImageFormat::Bmp), 0.0),
        (SourceFormat::Tiff, tiff(&image), 0.0),
    ];
    for (format, source, tolerance) in cases {
        let processed = run(&source, &as_it_is());
        assert_eq!((processed.format, processed.width, processed.height), (format, 120, 80));
        assert_eq!(processed.warnings, [], "{format:?}");
        let read = DynamicImage::ImageRgba8(pixels_of(&processed.renditions[0])).to_rgb8();
        let difference = mean_difference(&read, &image);
        assert!(difference <= tolerance, "{format:?} differs by {difference}");
    }
}

#[test]
fn a_jpeg_with_separate_component_scans_keeps_its_colors() {
    let image = gradient(150, 94);
    let source = jpeg_in_three_scans(&image);
    let processed = run(&source, &as_it_is());
    assert_eq!(processed.warnings, []);
    let read = DynamicImage::ImageRgba8(pixels_of(&processed.renditions[0])).to_rgb8();
    let difference = mean_difference(&read, &image);
    assert!(difference < 4.0, "differs by {difference}");
}

#[test]
fn renditions_are_upright_for_every_orientation() {
    // In each stored orientation, the corner that is red when upright is elsewhere.
    let (red, white) = ([230, 20, 20], [250, 250, 250]);
    for orientation in 1..=8_u8 {
        let (width, height) = if orientation >= 5 { (64, 96) } else { (96, 64) };
        let red_right = [2, 3, 7, 8].contains(&orientation);
        let red_low = [3, 4, 6, 7].contains(&orientation);
        let stored = RgbImage::from_fn(width, height, |x, y| {
            let is_red = (x >= width / 2) == red_right && (y >= height / 2) == red_low;
            image::Rgb(if is_red { red } else { white })
        });
        let exif = [b"Exif\0\0".to_vec(), exif_block(orientation)].concat();
        let in_jpeg = jpeg_with(&stored, Writing { segments: vec![(1, exif)], ..Writing::default() });
        let in_png = png_with(&file(stored, ImageFormat::Png), &[chunk(b"eXIf", &exif_block(orientation))]);
        for source in [in_jpeg, in_png] {
            let probed = probe(&source, &Limits::default()).expect("it is whole");
            assert_eq!((probed.width, probed.height, probed.orientation), (96, 64, orientation));
            let processed = run(&source, &as_it_is());
            assert_eq!((processed.width, processed.height), (96, 64));
            let pixels = pixels_of(&processed.renditions[0]);
            assert_eq!(pixels.dimensions(), (96, 64));
            assert!(
                is_near(pixels.get_pixel(8, 8), red, 12),
                "orientation {orientation}: {:?}",
                pixels.get_pixel(8, 8)
            );
            assert!([(88, 8), (8, 56), (88, 56)].iter().all(|at| is_near(pixels.get_pixel(at.0, at.1), white, 12)));
        }
    }
}

#[test]
fn cmyk_is_converted_to_rgb() {
    // Cyan, black and no ink, in thirds.
    let inks: [[u8; 4]; 3] = [[255, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0]];
    let light = [[0, 255, 255], [0, 0, 0], [255, 255, 255]];
    let samples = |inverted: bool| -> Vec<u8> {
        let ink = |x: usize| inks[x / 16].map(|ink| if inverted { 255 - ink } else { ink });
        (0..48 * 48).flat_map(|at| ink(at % 48)).collect()
    };
    for (color, adobe) in [(ColorType::Cmyk, true), (ColorType::CmykAsYcck, true), (ColorType::Cmyk, false)] {
        // The encoder writes inverted inks, as Adobe programs do; inverting them first writes plain inks.
        let mut source = jpeg_of(&samples(!adobe), 48, 48, color);
        let marker = segments(&source).find(|segment| segment[1] == 0xee).expect("the encoder writes it").to_vec();
        if !adobe {
            let at = source.windows(marker.len()).position(|window| window == marker).expect("it is there");
            source.drain(at..at + marker.len());
        }
        let pixels = pixels_of(&run(&source, &as_it_is()).renditions[0]);
        for (third, wanted) in light.into_iter().enumerate() {
            let pixel = pixels.get_pixel(third as u32 * 16 + 8, 24);
            assert!(is_near(pixel, wanted, 8), "{color:?}, Adobe {adobe}: {pixel:?} instead of {wanted:?}");
        }
    }
}

#[test]
fn transparency_is_kept_or_composed_on_white() {
    let image = RgbaImage::from_fn(64, 64, |x, _| if x < 32 { Rgba([200, 0, 0, 255]) } else { Rgba([0, 0, 0, 0]) });
    let source = file(image, ImageFormat::Png);
    for (format, alpha) in [(OutputFormat::Png, 0), (OutputFormat::Webp, 0), (OutputFormat::Jpeg, 255)] {
        // Padded, because the source's size must not limit the rendition here.
        let source = png_with(&source, &[chunk(b"tEXt", &[b'x'; 4000])]);
        let processed = run(&source, &[preset(Size::LongestEdge(32), Fit::Contain, format)]);
        assert_eq!(processed.renditions[0].format, RenditionFormat::Output(format));
        let pixels = pixels_of(&processed.renditions[0]);
        assert_eq!(pixels.get_pixel(28, 16).0[3], alpha, "{format:?}");
        assert!(is_near(pixels.get_pixel(4, 16), [200, 0, 0], 12), "{format:?}");
        if format == OutputFormat::Jpeg {
            assert!(is_near(pixels.get_pixel(28, 16), [255; 3], 4));
        }
    }
}

#[test]
fn sixteen_bit_samples_become_eight_bit() {
    let samples: Vec<u16> = (0..64 * 64).flat_map(|at| [(at % 64 * 1040) as u16, 0x8080, 0xffff]).collect();
    let pixels = pixels_of(&run(&png_16(&samples, 64, 64, ExtendedColorType::Rgb16), &as_it_is()).renditions[0]);
    assert!(is_near(pixels.get_pixel(0, 0), [0, 128, 255], 0));
    assert!(is_near(pixels.get_pixel(63, 5), [255, 128, 255], 0));
}

#[test]
fn only_the_first_frame_of_an_animation_is_shown() {
    let source = gif(40, 30, &[[10, 200, 30, 255], [200, 10, 30, 255]]);
    let processed = run(&source, &[preset(Size::LongestEdge(400), Fit::Contain, OutputFormat::Webp)]);
    assert_eq!(processed.warnings, [Warning::AnimationDropped]);
    assert!(is_near(pixels_of(&processed.renditions[0]).get_pixel(20, 15), [10, 200, 30], 8));
    assert_eq!(run(&gif(40, 30, &[[10, 200, 30, 255]]), &as_it_is()).warnings, []);
}

#[test]
fn colors_are_converted_from_the_profile_to_srgb() {
    let profile = moxcms::ColorProfile::new_display_p3().encode().expect("a profile");
    let packed = {
        let mut packer = flate2::write::ZlibEncoder::new(b"p3\0\0".to_vec(), flate2::Compression::best());
        std::io::Write::write_all(&mut packer, &profile).expect("memory");
        packer.finish().expect("memory")
    };
    let plain = file(RgbImage::from_pixel(64, 64, image::Rgb([120, 180, 90])), ImageFormat::Png);
    let processed = run(&png_with(&plain, &[chunk(b"iCCP", &packed)]), &as_it_is());
    assert_eq!(processed.warnings, []);
    // Display P3 (120, 180, 90) by its matrix: sRGB (100, 182, 76).
    let pixel = *pixels_of(&processed.renditions[0]).get_pixel(3, 3);
    assert!(is_near(&pixel, [100, 182, 76], 1), "{pixel:?}");
    assert!(!processed.renditions[0].bytes.windows(4).any(|window| window == b"iCCP"));
}

#[test]
fn an_unfit_profile_is_ignored_with_a_warning() {
    let gray = moxcms::ColorProfile::new_gray_with_gamma(2.2).encode().expect("a profile");
    for profile in [gray, b"no profile at all".to_vec()] {
        let segment = [b"ICC_PROFILE\0\x01\x01".to_vec(), profile].concat();
        let source = jpeg_with(&gradient(64, 64), Writing { segments: vec![(2, segment)], ..Writing::default() });
        let processed = run(&source, &as_it_is());
        assert_eq!(processed.warnings, [Warning::ProfileIgnored]);
        let read = DynamicImage::ImageRgba8(pixels_of(&processed.renditions[0])).to_rgb8();
        assert!(mean_difference(&read, &gradient(64, 64)) < 3.0);
    }
}

#[test]
fn renditions_contain_no_metadata_of_the_source() {
    let needle = b"NEEDLE-51.5007N";
    let exif = [b"Exif\0\0".to_vec(), exif_block(1), needle.to_vec()].concat();
    let segments =
        vec![(1, exif), (1, [b"http://ns.adobe.com/xap/1.0/\0", &needle[..]].concat()), (13, needle.to_vec())];
    // The quality is so low that the stripped source replaces some renditions.
    let writing = Writing { quality: 8, segments, ..Writing::default() };
    let mut in_jpeg = jpeg_with(&noise(120, 90, 7), writing);
    in_jpeg.splice(2..2, [&[0xff, 0xfe, 0, 2 + needle.len() as u8][..], needle].concat());
    in_jpeg.extend_from_slice(needle);
    let chunks = [chunk(b"tEXt", needle), chunk(b"eXIf", &[&exif_block(1), &needle[..]].concat())];
    let mut in_png = png_with(&file(RgbImage::new(20, 20), ImageFormat::Png), &chunks);
    in_png.extend_from_slice(needle);
    let mut stripped = 0;
    for source in [in_jpeg, in_png] {
        for format in [OutputFormat::Jpeg, OutputFormat::Webp, OutputFormat::Png] {
            let processed = run(&source, &[preset(Size::LongestEdge(500), Fit::Contain, format)]);
            let rendered = &processed.renditions[0];
            stripped += u32::from(matches!(rendered.format, RenditionFormat::Source(_)));
            let has = |part: &[u8]| rendered.bytes.windows(part.len()).any(|window| window == part);
            assert!(!has(needle) && !has(b"Exif") && !has(b"adobe.com"), "{format:?} as {:?}", rendered.format);
        }
    }
    assert!(stripped > 0, "the source without its metadata stood in for none");
}

#[test]
fn a_rendition_never_has_more_bytes_than_the_source() {
    let rough = Writing { quality: 5, ..Writing::default() };
    let sources = [
        jpeg_with(&noise(200, 150, 1), rough),
        jpeg_with(&gradient(700, 500), Writing { quality: 20, progressive: true, ..Writing::default() }),
        file(RgbImage::from_pixel(300, 300, image::Rgb([255, 255, 255])), ImageFormat::Png),
        file(RgbImage::new(1, 1), ImageFormat::Png),
        gif(64, 64, &[[1, 2, 3, 255]]),
        file(gradient(256, 256), ImageFormat::WebP),
    ];
    for source in sources {
        let mut presets = default_presets();
        presets.push(preset(Size::LongestEdge(5_000), Fit::Contain, OutputFormat::Png));
        for rendered in run(&source, &presets).renditions {
            let (bytes, most) = (rendered.bytes.len(), source.len());
            assert!(bytes <= most, "{} as {}: {bytes} bytes of {most}", rendered.preset, rendered.format_name());
            assert_eq!(pixels_of(&rendered).dimensions(), (rendered.width, rendered.height));
        }
    }
}

#[test]
fn renditions_are_in_the_order_of_presets_and_formats() {
    let mut presets = vec![
        preset(Size::LongestEdge(50), Fit::Contain, OutputFormat::Png),
        preset(Size::Box { width: 60, height: 60 }, Fit::Cover(Focus::CENTER), OutputFormat::Jpeg),
        preset(Size::LongestEdge(200), Fit::Contain, OutputFormat::Webp),
    ];
    presets[2].formats.push(OutputFormat::Png);
    let processed = run(&file(noise(300, 200, 3), ImageFormat::Png), &presets);
    let made: Vec<_> = processed.renditions.iter().map(|r| (r.format_name(), r.width, r.height)).collect();
    assert_eq!(made, [("png", 50, 33), ("jpeg", 60, 60), ("webp", 200, 133), ("png", 200, 133)]);
    for rendered in &processed.renditions {
        assert_eq!(pixels_of(rendered).dimensions(), (rendered.width, rendered.height));
    }
}

#[test]
fn cover_shows_the_center() {
    // Red, green and blue thirds: the square middle is green.
    let image = RgbImage::from_fn(300, 100, |x, _| {
        image::Rgb(match x / 100 {
            0 => [255, 0, 0],
            1 => [0, 200, 0],
            _ => [0, 0, 255],
        })
    });
    let square = preset(Size::Box { width: 50, height: 50 }, Fit::Cover(Focus::CENTER), OutputFormat::Png);
    let pixels = pixels_of(&run(&jpeg(&image), &[square]).renditions[0]);
    assert_eq!(pixels.dimensions(), (50, 50));
    assert!([(4, 4), (25, 25), (45, 45)].iter().all(|at| is_near(pixels.get_pixel(at.0, at.1), [0, 200, 0], 12)));
}

#[test]
fn processing_is_deterministic() {
    let source = jpeg(&noise(640, 480, 9));
    let (first, second) = (run(&source, &default_presets()), run(&source, &default_presets()));
    assert_eq!(first.renditions, second.renditions);
    assert_eq!((first.thumbhash, first.dominant_color), (second.thumbhash, second.dominant_color));
    assert_eq!(first.perceptual_hash, second.perceptual_hash);
}

#[test]
fn an_image_without_presets_is_still_described() {
    let processed = run(&jpeg(&RgbImage::from_pixel(640, 480, image::Rgb([20, 120, 220]))), &[]);
    assert!(processed.renditions.is_empty());
    // JPEG changes each sample by at most one here.
    assert!(
        ["#1478dc", "#1578dd", "#1478dd", "#1578dc"].contains(&&*processed.dominant_color),
        "{}",
        processed.dominant_color
    );
    assert!(processed.thumbhash.len() >= 20);
}

#[test]
fn more_effort_gives_fewer_bytes() {
    let pixels = Pixels { width: 300, height: 300, alpha: false, data: noise(300, 300, 2).into_raw() };
    for format in [OutputFormat::Jpeg, OutputFormat::Webp] {
        let bytes = |effort| {
            let encoded = encode::encode(&pixels, format, tuning::Tuning { quality: 80, effort }).expect("encodes");
            assert!(image::guess_format(&encoded).is_ok());
            encoded.len()
        };
        let (fast, balanced, small) = (bytes(Effort::Fast), bytes(Effort::Balanced), bytes(Effort::Small));
        // For noise, a progressive JPEG without trellis is 1 % larger than a baseline one; both are smaller than the
        // fast one.
        assert!(fast >= balanced && fast >= small, "{format:?}: {fast}, {balanced}, {small}");
    }
}
