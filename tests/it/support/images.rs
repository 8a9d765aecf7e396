//! Images that the tests draw.

use std::io::Cursor;

/// Returns a JPEG of `width` × `height` pixels with soft colors and some detail, which compresses like a photograph.
pub fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&rgb(width, height), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// As [`jpeg`], with `number` drawn as black and white squares, so that each number gives another image.
///
/// Needs 8 × 4 squares of 8 pixels: at least 64 × 32 pixels.
pub fn numbered_jpeg(number: u32, width: u16, height: u16) -> Vec<u8> {
    const SQUARE: usize = 8;
    let mut pixels = rgb(width, height);
    for bit in 0..32_usize {
        let shade = if number >> bit & 1 == 1 { 255 } else { 0 };
        for y in 0..SQUARE {
            let row = (bit / 8 * SQUARE + y) * usize::from(width) + bit % 8 * SQUARE;
            pixels[row * 3..(row + SQUARE) * 3].fill(shade);
        }
    }
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// Returns an image of 40 × 30 pixels in this format.
pub fn written_as(format: image::ImageFormat) -> Vec<u8> {
    let pixels = image::RgbImage::from_raw(40, 30, rgb(40, 30)).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Returns a TIFF of 40 × 30 pixels.
pub fn tiff() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    encoder.write_image::<tiff::encoder::colortype::RGB8>(40, 30, &rgb(40, 30)).unwrap();
    bytes.into_inner()
}

/// The camera's maker in [`jpeg_with_place`].
pub const MAKER: &str = "Acme Cameras";

/// Returns a JPEG like a phone's: its EXIF data contain the camera's maker and the place, 12°34'56" N 1°2'3" E.
pub fn jpeg_with_place(width: u16, height: u16) -> Vec<u8> {
    let plain = jpeg(width, height);
    let exif = exif_with_place();
    let mut bytes = plain[..2].to_vec();
    bytes.extend([0xff, 0xe1]);
    bytes.extend(u16::try_from(exif.len() + 2).unwrap().to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&plain[2..]);
    bytes
}

/// Returns whether an image contains the maker or the place of [`jpeg_with_place`], or any EXIF data.
pub fn tells_the_place(bytes: &[u8]) -> bool {
    let has = |part: &[u8]| bytes.windows(part.len()).any(|found| found == part);
    has(b"Exif\0") || has(MAKER.as_bytes()) || has(&degrees([12, 34, 56])) || has(b"EXIF")
}

fn exif_with_place() -> Vec<u8> {
    const ASCII: u16 = 2;
    const LONG: u16 = 4;
    const RATIONAL: u16 = 5;
    let field = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
        [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value].concat()
    };
    let maker = format!("{MAKER}\0");
    let at = |offset: u32| offset.to_le_bytes();
    // Two directories of 2 and 4 fields, each with a count before and a link after it.
    let (first, second) = (8_u32, 8 + 2 + 2 * 12 + 4);
    let values = second + 2 + 4 * 12 + 4;
    let (north, east) =
        (values + u32::try_from(maker.len()).unwrap(), values + u32::try_from(maker.len()).unwrap() + 24);
    let directories = [
        vec![field(0x010f, ASCII, maker.len().try_into().unwrap(), at(values)), field(0x8825, LONG, 1, at(second))],
        vec![
            field(1, ASCII, 2, *b"N\0\0\0"),
            field(2, RATIONAL, 3, at(north)),
            field(3, ASCII, 2, *b"E\0\0\0"),
            field(4, RATIONAL, 3, at(east)),
        ],
    ];
    let mut exif = b"Exif\0\0II*\0".to_vec();
    exif.extend(at(first));
    for fields in directories {
        exif.extend(u16::try_from(fields.len()).unwrap().to_le_bytes());
        exif.extend(fields.concat());
        exif.extend(at(0));
    }
    exif.extend(maker.bytes());
    exif.extend(degrees([12, 34, 56]));
    exif.extend(degrees([1, 2, 3]));
    exif
}

/// Degrees, minutes and seconds as three rationals.
fn degrees(parts: [u32; 3]) -> Vec<u8> {
    parts.into_iter().flat_map(|part| [part.to_le_bytes(), 1_u32.to_le_bytes()].concat()).collect()
}

/// Returns a PNG of `width` × `height` pixels.
pub fn png(width: u16, height: u16) -> Vec<u8> {
    let image = image::RgbImage::from_raw(width.into(), height.into(), rgb(width, height)).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Returns the header of a PNG of `width` × `height` pixels, and a few zero bytes.
pub fn huge_png(width: u32, height: u32) -> Vec<u8> {
    let mut header = Vec::from(*b"IHDR");
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = Vec::from(*b"\x89PNG\r\n\x1a\n");
    png.extend(13_u32.to_be_bytes());
    png.extend(&header);
    png.extend(crc32(&header).to_be_bytes());
    png.extend([0; 64]);
    png
}

fn rgb(width: u16, height: u16) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..u32::from(height) {
        for x in 0..u32::from(width) {
            let detail = ((x * 7) ^ (y * 13)) % 23;
            let red = x * 200 / u32::from(width) + detail;
            let green = y * 200 / u32::from(height) + detail;
            let blue = 120 + detail;
            pixels.extend([red as u8, green as u8, blue as u8]);
        }
    }
    pixels
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
