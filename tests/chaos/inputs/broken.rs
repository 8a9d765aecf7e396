//! Images broken by code: truncated files, changed bytes, false headers, and decompression bombs.

use std::io::Write as _;

use pm::imaging::{Effort, Fit, Limits, OutputFormat, Preset, Size, process};

use crate::images;

/// Returns `count` files by name, bombs and false headers first, random damage after them. The bomb within the limits
/// is `side` pixels wide and high.
pub fn images(random: &mut fastrand::Rng, (number, side): (usize, u32)) -> Vec<(String, Vec<u8>)> {
    let mut all = lies(side);
    let whole = whole();
    for (name, bytes) in &whole {
        all.push((format!("whole-{name}"), bytes.clone()));
    }
    while all.len() < number {
        let (name, bytes) = &whole[random.usize(..whole.len())];
        let (how, bytes) = broken(random, bytes);
        all.push((format!("{how}-{}-{name}", all.len()), bytes));
    }
    all.truncate(number);
    all
}

/// Valid images in each format that can be written here.
fn whole() -> Vec<(String, Vec<u8>)> {
    let source = images::png(160, 120);
    let formats: Vec<_> = OutputFormat::ALL.into_iter().filter(|format| format.is_built_in()).collect();
    let preset = Preset {
        name: "whole".into(),
        size: Size::LongestEdge(160),
        fit: Fit::Contain,
        formats,
        quality: 80,
        effort: Effort::Fast,
    };
    let made = process(&source, &[preset], &Limits::default()).expect("a generated image is readable");
    let mut all: Vec<_> =
        made.renditions.into_iter().map(|made| (made.format.as_str().to_owned(), made.bytes)).collect();
    let pixels =
        image::load_from_memory_with_format(&source, image::ImageFormat::Png).expect("a generated image is readable");
    for (name, format) in [("bmp", image::ImageFormat::Bmp), ("gif", image::ImageFormat::Gif)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, format).expect("memory takes everything");
        all.push((name.to_owned(), bytes.into_inner()));
    }
    all
}

fn broken(random: &mut fastrand::Rng, bytes: &[u8]) -> (&'static str, Vec<u8>) {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    let how = match random.u8(..5) {
        0 => {
            bytes.truncate(random.usize(..length));
            "cut"
        }
        1 => {
            for _ in 0..random.usize(1..20) {
                bytes[random.usize(..length)] = random.u8(..);
            }
            "changed"
        }
        2 => {
            // Changes mostly the beginning, where the headers are.
            let place = random.usize(..length.min(64) - 4);
            bytes[place..place + 4].copy_from_slice(&[[0xff; 4], [0; 4], [0x7f, 0xff, 0xff, 0xff]][random.usize(..3)]);
            "headers"
        }
        3 => {
            let (from, to) = (random.usize(..length), random.usize(..length));
            let piece = bytes[from.min(to)..from.max(to)].to_vec();
            let place = random.usize(..length);
            bytes.splice(place..place, piece);
            "doubled"
        }
        _ => {
            let (from, to) = (random.usize(..length), random.usize(..length));
            bytes[from.min(to)..from.max(to)].fill(random.u8(..));
            "wiped"
        }
    };
    (how, bytes)
}

/// Files with a false type or false dimensions.
fn lies(side: u32) -> Vec<(String, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let all = [
        ("empty", Vec::new()),
        ("page.html", text("<!doctype html><title>404</title>")),
        ("drawing.svg", text("<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>")),
        ("huge.png", images::huge_png(100_000, 100_000)),
        ("wide.png", images::huge_png(16_385, 1)),
        ("bomb.png", png_bomb(side, side)),
        ("bomb-over-the-limit.png", png_bomb(50_000, 50_000)),
        ("profile-bomb.png", profile_bomb()),
        ("bomb.gif", gif_bomb(65_535, 65_535)),
        ("bomb.bmp", bmp_lie(30_000, 30_000)),
        ("scans.jpg", many_scans()),
        ("zeros", vec![0; 1 << 20]),
        ("magic-alone.jpg", vec![0xff, 0xd8, 0xff]),
        ("magic-alone.webp", text("RIFF\u{1}\u{1}\u{1}\u{1}WEBPVP8 ")),
    ];
    all.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
}

fn packed(bytes: u64) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        encoder.write_all(&zeros[..now as usize]).expect("memory takes everything");
        left -= now;
    }
    encoder.finish().expect("memory takes everything")
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), kind.as_slice(), data, &crc.sum().to_be_bytes()].concat()
}

fn png(width: u32, height: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    // One bit per pixel, gray.
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(*b"IHDR", &header), chunks.concat(), chunk(*b"IEND", &[])].concat()
}

/// Returns a PNG of a few kilobytes with `width` × `height` pixels.
fn png_bomb(width: u32, height: u32) -> Vec<u8> {
    let rows = u64::from(height) * (1 + u64::from(width).div_ceil(8));
    png(width, height, &[chunk(*b"IDAT", &packed(rows))])
}

/// Returns an image of one pixel with an ICC profile of 64 MiB.
fn profile_bomb() -> Vec<u8> {
    let profile = [b"icc\0\0".as_slice(), &packed(64 << 20)].concat();
    png(1, 1, &[chunk(*b"iCCP", &profile), chunk(*b"IDAT", &packed(2))])
}

fn gif_bomb(width: u16, height: u16) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0");
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(b"\0\x02\x02\x44\x01\0;");
    file
}

fn bmp_lie(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    for number in [58, 0, 54, 40, width, height, 1 | 1 << 16, 0, 4, 1, 1, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    file
}

/// Returns a progressive JPEG whose last scan is repeated hundreds of times.
fn many_scans() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 80);
    encoder.set_progressive(true);
    let pixels = vec![120; 512 * 512 * 3];
    encoder.encode(&pixels, 512, 512, jpeg_encoder::ColorType::Rgb).expect("memory takes everything");
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).expect("an image has a scan");
    let last = bytes[scan..bytes.len() - 2].to_vec();
    let end = bytes.split_off(bytes.len() - 2);
    (0..500).for_each(|_| bytes.extend(&last));
    [bytes, end].concat()
}
