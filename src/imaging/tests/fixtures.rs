//! Generates test images.

mod bits;
pub(in crate::imaging) mod bmp_writer;
pub(in crate::imaging) mod collection;
pub(in crate::imaging) mod gif_writer;
pub(in crate::imaging) mod jpeg_writer;
mod lossless;
pub(in crate::imaging) mod png_writer;
pub(in crate::imaging) mod scene;
pub(in crate::imaging) mod tiff_writer;
pub(in crate::imaging) mod webp_writer;

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::{DynamicImage, ExtendedColorType, Frame, ImageEncoder, ImageFormat, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::imaging::{Effort, Fit, OutputFormat, Preset, Size};

/// Returns a gradient with a different color in each corner: red increases to the right, green downwards, blue to the
/// left.
pub(in crate::imaging) fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (across, down) = ((x * 255 / width.max(2)) as u8, (y * 255 / height.max(2)) as u8);
        image::Rgb([across, down, 255 - across])
    })
}

/// Returns incompressible pixels; equal seeds give equal pixels.
pub(in crate::imaging) fn noise(width: u32, height: u32, mut seed: u32) -> RgbImage {
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    RgbImage::from_fn(width, height, |_, _| image::Rgb([next(), next(), next()]))
}

/// Settings of [`jpeg_with`].
pub(in crate::imaging) struct Writing {
    pub quality: u8,
    pub progressive: bool,
    /// Application segments by number, in this order.
    pub segments: Vec<(u8, Vec<u8>)>,
}

impl Default for Writing {
    fn default() -> Self {
        Self { quality: 92, progressive: false, segments: Vec::new() }
    }
}

pub(in crate::imaging) fn jpeg(image: &RgbImage) -> Vec<u8> {
    jpeg_with(image, Writing::default())
}

pub(in crate::imaging) fn jpeg_with(image: &RgbImage, writing: Writing) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, writing.quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_progressive(writing.progressive);
    for (number, body) in writing.segments {
        encoder.add_app_segment(number, body).expect("the segment is small");
    }
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder.encode(image.as_raw(), width, height, ColorType::Rgb).expect("encodes");
    file
}

/// Encodes samples of one to four components unchanged.
pub(in crate::imaging) fn jpeg_of(samples: &[u8], width: u32, height: u32, color: ColorType) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = Encoder::new(&mut file, 95);
    encoder.encode(samples, width as u16, height as u16, color).expect("encodes");
    file
}

/// Encodes a file with one of the encoders of `image`.
pub(in crate::imaging) fn file(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).expect("encodes");
    file.into_inner()
}

pub(in crate::imaging) fn tiff(image: &RgbImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut file).expect("a directory fits");
    encoder
        .write_image::<tiff::encoder::colortype::RGB8>(image.width(), image.height(), image.as_raw())
        .expect("encodes");
    file.into_inner()
}

/// Returns a GIF with one frame per color.
pub(in crate::imaging) fn gif(width: u32, height: u32, colors: &[[u8; 4]]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = GifEncoder::new(&mut file);
    for color in colors {
        let frame = Frame::new(RgbaImage::from_pixel(width, height, image::Rgba(*color)));
        encoder.encode_frame(frame).expect("encodes");
    }
    drop(encoder);
    file
}

/// Returns a JPEG with three components in three scans, chroma at half resolution: three joined gray images.
pub(in crate::imaging) fn jpeg_in_three_scans(image: &RgbImage) -> Vec<u8> {
    let (width, height) = image.dimensions();
    let component = |divisor: u32, weights: [f32; 3], offset: f32| {
        let samples: Vec<u8> = (0..height.div_ceil(divisor))
            .flat_map(|y| (0..width.div_ceil(divisor)).map(move |x| (x * divisor, y * divisor)))
            .map(|(x, y)| image.get_pixel(x.min(width - 1), y.min(height - 1)).0)
            .map(|rgb| (0..3).map(|part| weights[part] * f32::from(rgb[part])).sum::<f32>() + offset)
            .map(|sample| sample.round().clamp(0.0, 255.0) as u8)
            .collect();
        jpeg_of(&samples, width.div_ceil(divisor), height.div_ceil(divisor), ColorType::Luma)
    };
    let luma = component(1, [0.299, 0.587, 0.114], 0.0);
    let blue = component(2, [-0.168_7, -0.331_3, 0.5], 128.0);
    let red = component(2, [0.5, -0.418_7, -0.081_3], 128.0);
    let mut file = vec![0xff, 0xd8];
    for marker in [0xdb, 0xc4] {
        for segment in segments(&luma).filter(|segment| segment[1] == marker) {
            file.extend_from_slice(segment);
        }
    }
    file.extend([0xff, 0xc0, 0, 17, 8]);
    file.extend((height as u16).to_be_bytes());
    file.extend((width as u16).to_be_bytes());
    file.extend([3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]);
    for (id, gray) in [(1, &luma), (2, &blue), (3, &red)] {
        file.extend([0xff, 0xda, 0, 8, 1, id, 0, 0, 63, 0]);
        file.extend_from_slice(scan_data(gray));
    }
    file.extend([0xff, 0xd9]);
    file
}

/// Returns the segments before the scan of a file with one scan, including markers.
pub(in crate::imaging) fn segments(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 2;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        let segment = &file[at..at + 2 + length];
        at += segment.len();
        (segment[1] != 0xda).then_some(segment)
    })
}

/// Returns the data between the only scan's header and the end.
fn scan_data(file: &[u8]) -> &[u8] {
    let headers: usize = segments(file).map(<[u8]>::len).sum();
    let scan = 2 + headers;
    let length = usize::from(u16::from_be_bytes([file[scan + 2], file[scan + 3]]));
    &file[scan + 2 + length..file.len() - 2]
}

/// Returns a PNG chunk with its checksum.
pub(in crate::imaging) fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(kind);
    sum.update(body);
    [&(body.len() as u32).to_be_bytes()[..], kind, body, &sum.sum().to_be_bytes()].concat()
}

/// Returns `file` with `chunks` inserted after its first chunk.
pub(in crate::imaging) fn png_with(file: &[u8], chunks: &[Vec<u8>]) -> Vec<u8> {
    [&file[..33], &chunks.concat(), &file[33..]].concat()
}

/// Returns a PNG with 16 bits per sample.
pub(in crate::imaging) fn png_16(samples: &[u16], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_ne_bytes()).collect();
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file).write_image(&bytes, width, height, color).expect("encodes");
    file
}

pub(in crate::imaging) fn preset(size: Size, fit: Fit, format: OutputFormat) -> Preset {
    Preset { name: "it".to_owned(), size, fit, formats: vec![format], quality: 90, effort: Effort::Balanced }
}

/// Returns a preset for one lossless rendition at the image's size, up to 4,000 pixels.
pub(in crate::imaging) fn as_it_is() -> [Preset; 1] {
    [preset(Size::LongestEdge(4_000), Fit::Contain, OutputFormat::Png)]
}
