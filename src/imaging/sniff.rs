//! Detects a file's format by its first bytes, never by name or media type.

use serde::{Deserialize, Serialize};

use super::error::Error;

/// A supported source format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceFormat {
    /// Baseline and progressive JPEG: gray, color, CMYK.
    Jpeg,
    /// PNG of every color type and depth.
    Png,
    /// Lossy and lossless WebP.
    Webp,
    /// GIF; only the first frame is read.
    Gif,
    /// Windows bitmaps.
    Bmp,
    /// TIFF with gray, RGB, palette, CMYK or YCbCr samples; only the first page is read.
    Tiff,
    /// AVIF of 8 to 12 bits; of a sequence, the primary image.
    Avif,
}

impl SourceFormat {
    /// Returns the name in API responses: `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`, `avif`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Avif => "avif",
        }
    }

    /// Returns the file extension without its dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Avif => "avif",
        }
    }

    /// Returns the media type for `Content-Type`.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
            Self::Avif => "image/avif",
        }
    }
}

/// Detects the format of `source`.
///
/// # Errors
/// [`Error::Empty`] without bytes; [`Error::UnsupportedFormat`], naming the detected kind, for all other files.
pub(super) fn sniff(source: &[u8]) -> Result<SourceFormat, Error> {
    let starts = |magic: &[u8]| source.starts_with(magic);
    if source.is_empty() {
        Err(Error::Empty)
    } else if starts(b"\xff\xd8\xff") {
        Ok(SourceFormat::Jpeg)
    } else if starts(b"\x89PNG\r\n\x1a\n") {
        Ok(SourceFormat::Png)
    } else if starts(b"RIFF") && source.get(8..12) == Some(b"WEBP") {
        Ok(SourceFormat::Webp)
    } else if starts(b"GIF87a") || starts(b"GIF89a") {
        Ok(SourceFormat::Gif)
    } else if is_bmp(source) {
        Ok(SourceFormat::Bmp)
    } else if starts(b"II*\0") || starts(b"MM\0*") {
        Ok(SourceFormat::Tiff)
    } else if is_avif(source) {
        Ok(SourceFormat::Avif)
    } else {
        Err(Error::unsupported(other_kind(source)))
    }
}

/// Many texts begin with `BM`, so the size of the next header is checked too.
fn is_bmp(source: &[u8]) -> bool {
    source.starts_with(b"BM") && super::bytes::le32(source, 14).is_some_and(|header| (12..=124).contains(&header))
}

/// The major brand may be a shared one, so compatible brands count too.
fn is_avif(source: &[u8]) -> bool {
    const BRANDS: usize = 64;
    if source.get(4..8) != Some(b"ftyp") {
        return false;
    }
    let length = super::bytes::be32(source, 0).unwrap_or(0) as usize;
    let body = source.get(8..length.min(source.len())).unwrap_or_default();
    let mut brands = body.chunks_exact(4).take(BRANDS).enumerate().filter(|(index, _)| *index != 1);
    brands.any(|(_, brand)| brand == b"avif" || brand == b"avis")
}

fn other_kind(source: &[u8]) -> &'static str {
    binary_kind(source).or_else(|| text_kind(source)).unwrap_or("of an unknown kind")
}

fn binary_kind(source: &[u8]) -> Option<&'static str> {
    if source.get(4..8) == Some(b"ftyp") {
        return Some(brand_kind(source.get(8..12).unwrap_or_default()));
    }
    let kinds: [(&[u8], &str); 22] = [
        (b"%PDF-", "a PDF document"),
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (b"8BPS", "a Photoshop document"),
        (b"\0\0\x01\0", "an icon (ICO)"),
        (b"\0\0\x02\0", "a cursor (CUR)"),
        (b"II+\0", "a BigTIFF image"),
        (b"MM\0+", "a BigTIFF image"),
        (b"II\xbc\x01", "a JPEG XR image"),
        (b"qoif", "a QOI image"),
        (b"DDS ", "a DirectDraw surface (DDS)"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE", "a Radiance HDR image"),
        (b"%!PS", "a PostScript document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"Rar!", "a RAR archive"),
        (b"7z\xbc\xaf", "a 7-Zip archive"),
        (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
        (b"RIFF", "a RIFF file that is not WebP"),
    ];
    kinds.into_iter().find(|(magic, _)| source.starts_with(magic)).map(|(_, kind)| kind)
}

/// Names the kind of an ISO base media file: a still image by its brand, otherwise a video.
fn brand_kind(brand: &[u8]) -> &'static str {
    match brand {
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1" => "a HEIC image",
        b"crx " => "a camera raw image (CR3)",
        _ => "a video (MP4 or QuickTime)",
    }
}

/// Number of bytes inspected to detect kinds of text.
const TEXT_WINDOW: usize = 1024;

fn text_kind(source: &[u8]) -> Option<&'static str> {
    let window = &source[..source.len().min(TEXT_WINDOW)];
    let utf16 = window.starts_with(b"\xff\xfe") || window.starts_with(b"\xfe\xff");
    if !utf16 && window.iter().any(|byte| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)) {
        return None;
    }
    let text = String::from_utf8_lossy(window).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let kind = if text.starts_with("<svg") || (text.starts_with('<') && text.contains("<svg") && !is_html(text)) {
        "an SVG drawing"
    } else if is_html(text) {
        "an HTML page"
    } else if text.starts_with("<?xml") || text.starts_with("<") {
        "an XML document"
    } else if text.starts_with('{') || text.starts_with('[') {
        "a JSON document"
    } else {
        "a text"
    };
    Some(kind)
}

fn is_html(text: &str) -> bool {
    text.starts_with("<!doctype html") || ["<html", "<head", "<body"].iter().any(|tag| text.contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_kind_is_named() {
        let cases: [(&[u8], &str); 11] = [
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
            (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "SVG"),
            (b"<!DOCTYPE html><p>Not found</p>", "HTML"),
            (b"\n <html><body><svg/></body></html>", "HTML"),
            (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIC"),
            (b"\0\0\0\x1cftypisom\0\0\0\0", "video"),
            (b"%PDF-1.7\n", "PDF"),
            (b"{\"error\":\"gone\"}", "JSON"),
            (b"BMW is a maker of cars", "text"),
            (b"PK\x03\x04....", "ZIP"),
            (b"\x01\x02\x03", "unknown"),
        ];
        for (bytes, kind) in cases {
            let error = sniff(bytes).expect_err("not an image that is read");
            assert!(matches!(error, Error::UnsupportedFormat { .. }), "{error}");
            assert!(error.to_string().contains(kind), "{kind}: {error}");
        }
        assert_eq!(sniff(b""), Err(Error::Empty));
    }
}
