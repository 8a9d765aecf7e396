//! Pictures that the tests draw themselves.

/// A JPEG of `width` × `height` pixels with soft colours and some detail, so that it compresses like a photograph.
pub fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.encode(&rgb(width, height), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// As [`jpeg`], with `number` drawn into it in squares of black and white, so that no two numbers give the same picture.
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

/// A PNG of `width` × `height` pixels.
pub fn png(width: u16, height: u16) -> Vec<u8> {
    let picture = image::RgbImage::from_raw(width.into(), height.into(), rgb(width, height)).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The header of a PNG that says it has `width` × `height` pixels, and a few bytes of nothing.
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
