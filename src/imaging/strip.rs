//! Removes metadata from a source file without re-encoding its pixels.

use super::header::{Header, gif, jpeg::Segments, png, webp};
use super::sniff::SourceFormat;

/// Returns `source` without metadata, or `None` if the result would look different from the image: rotated, not in
/// sRGB, more than eight bits, or animated. The file must not be damaged.
pub(super) fn stripped(source: &[u8], header: &Header) -> Option<Vec<u8>> {
    let plain = header.orientation == 1 && header.profile.is_none() && !header.profile_broken;
    if !plain || header.cmyk {
        return None;
    }
    match header.format {
        SourceFormat::Jpeg => Some(strip_jpeg(source)),
        SourceFormat::Png if source.get(24) != Some(&16) => Some(png::only_pixels(source).into_owned()),
        SourceFormat::Webp if !header.animated => strip_webp(source),
        SourceFormat::Gif => strip_gif(source),
        SourceFormat::Png | SourceFormat::Webp | SourceFormat::Bmp | SourceFormat::Tiff | SourceFormat::Avif => None,
    }
}

/// Removes comments and application segments, except the two that define how to read the samples.
fn strip_jpeg(source: &[u8]) -> Vec<u8> {
    let mut kept = vec![0xff, 0xd8];
    let mut scan_from = None;
    for segment in Segments::new(source) {
        if let Some(from) = scan_from.take() {
            kept.extend_from_slice(&source[from..segment.start]);
        }
        match segment.marker {
            0xe0 if segment.body.starts_with(b"JFIF\0") && segment.body.len() >= 14 => {
                // The last two bytes are the size of a thumbnail, which is removed.
                kept.extend_from_slice(&[0xff, 0xe0, 0, 16]);
                kept.extend_from_slice(&segment.body[..12]);
                kept.extend_from_slice(&[0, 0]);
            }
            0xee if segment.body.starts_with(b"Adobe") && segment.body.len() >= 12 => {
                kept.extend_from_slice(&[0xff, 0xee, 0, 14]);
                kept.extend_from_slice(&segment.body[..12]);
            }
            0xe0..=0xef | 0xfe => {}
            marker => {
                kept.extend_from_slice(&source[segment.start..segment.end]);
                scan_from = (marker == 0xda).then_some(segment.end);
            }
        }
    }
    kept
}

fn strip_webp(source: &[u8]) -> Option<Vec<u8>> {
    let mut kept = b"RIFF\0\0\0\0WEBP".to_vec();
    for chunk in webp::Chunks::new(source) {
        if !matches!(&chunk.kind, b"VP8X" | b"ALPH" | b"VP8 " | b"VP8L") {
            continue;
        }
        let start = kept.len();
        kept.extend_from_slice(&chunk.kind);
        kept.extend_from_slice(&u32::try_from(chunk.body.len()).ok()?.to_le_bytes());
        kept.extend_from_slice(chunk.body);
        if &chunk.kind == b"VP8X" {
            // Only the alpha flag still applies.
            *kept.get_mut(start + 8)? &= 0x10;
        }
        if chunk.body.len() % 2 == 1 {
            kept.push(0);
        }
    }
    let length = u32::try_from(kept.len() - 8).ok()?;
    kept[4..8].copy_from_slice(&length.to_le_bytes());
    Some(kept)
}

/// Returns the first frame with its graphic control extension.
fn strip_gif(source: &[u8]) -> Option<Vec<u8>> {
    let mut at = 13 + gif::palette_bytes(*source.get(10)?);
    let mut kept = source.get(..at)?.to_vec();
    let mut control: &[u8] = &[];
    loop {
        match *source.get(at)? {
            0x21 => {
                let end = gif::after_blocks(source, at + 2);
                if *source.get(at + 1)? == 0xf9 {
                    control = source.get(at..end)?;
                }
                at = end;
            }
            0x2c => {
                let end = gif::after_blocks(source, at + 11 + gif::palette_bytes(*source.get(at + 9)?));
                kept.extend_from_slice(control);
                kept.extend_from_slice(source.get(at..end)?);
                kept.push(0x3b);
                return Some(kept);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, RgbImage};

    use super::*;
    use crate::imaging::header;
    use crate::imaging::limits::Limits;
    use crate::imaging::tests::fixtures::file;

    fn webp_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let padding: &[u8] = if body.len() % 2 == 1 { &[0] } else { &[] };
        [kind, &(body.len() as u32).to_le_bytes()[..], body, padding].concat()
    }

    #[test]
    fn a_stripped_webp_keeps_only_its_pixels() {
        let image = RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8 * 9, y as u8 * 20, 77]));
        let simple = file(image.clone(), ImageFormat::WebP);
        let canvas = webp_chunk(b"VP8X", &[0x0c, 0, 0, 0, 19, 0, 0, 9, 0, 0]);
        let metadata = [webp_chunk(b"EXIF", b"where it was taken"), webp_chunk(b"XMP ", b"who took it")].concat();
        let chunks = [&canvas[..], &simple[12..], &metadata].concat();
        let source = [b"RIFF", &(chunks.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &chunks].concat();
        let header = header::read(&source, &Limits::default()).expect("it is whole");
        let bare = stripped(&source, &header).expect("it looks the same without");
        assert_eq!(bare.len(), source.len() - metadata.len());
        assert!(!bare.windows(5).any(|window| window == b"where" || window == b"XMP w"));
        assert_eq!(image::load_from_memory(&bare).expect("decodes").to_rgb8(), image);
    }

    #[test]
    fn an_image_that_would_look_different_is_not_stripped() {
        let source = file(RgbImage::new(4, 4), ImageFormat::Png);
        let plain = header::read(&source, &Limits::default()).expect("it is whole");
        assert!(stripped(&source, &plain).is_some());
        assert_eq!(stripped(&source, &Header { orientation: 3, ..plain.clone() }), None);
        assert_eq!(stripped(&source, &Header { profile: Some(vec![1]), ..plain.clone() }), None);
        assert_eq!(stripped(&source, &Header { profile_broken: true, ..plain }), None);
    }
}
