//! Shared by the targets: generated seeds, limits and presets that keep one image cheap, and the definition of a
//! finding.

use std::{fs, panic, path::PathBuf};

use pm::imaging::{Effort, Fit, Focus, Limits, OutputFormat, Preset, Size, process};

/// Limits under which an image takes milliseconds.
pub fn small_limits() -> Limits {
    Limits { max_pixels: 1 << 18, max_side: 4_096, max_memory: 96 << 20, max_metadata: 1 << 20, max_scans: 20 }
}

/// Presets that use every fast encoder and every fit mode.
pub fn small_presets() -> Vec<Preset> {
    let preset = |name: &str, size, fit, formats: &[OutputFormat], quality| Preset {
        name: name.into(),
        size,
        fit,
        formats: formats.to_vec(),
        quality,
        effort: Effort::Fast,
    };
    let focus = Focus::from_thousandths(250, 900).expect("both are at most 1,000");
    let boxed = |width, height| Size::Box { width, height };
    vec![
        preset("edge", Size::LongestEdge(96), Fit::Contain, &[OutputFormat::Jpeg, OutputFormat::Webp], 80),
        preset("cut", boxed(40, 24), Fit::Cover(focus), &[OutputFormat::Png], 80),
        preset("squeezed", boxed(17, 33), Fit::Fill, &[OutputFormat::WebpLossless], 1),
    ]
}

/// Makes only panics of `pm`'s own code end the run. `pm` catches a decoder's panic and returns an error, as intended;
/// a panic of its own code would be caught as well, and so stay hidden.
pub fn end_at_own_panics() {
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let elsewhere = panic.location().is_some_and(|place| {
            let file = place.file();
            file.contains("/registry/src/") || file.contains("/rustc/")
        });
        if !elsewhere {
            shown(panic);
        }
    }));
}

/// Writes `seeds` to the directory `PM_FUZZ_SEEDS`, if set. The fuzzer reads it afterwards.
pub fn write_seeds(seeds: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let Some(directory) = std::env::var_os("PM_FUZZ_SEEDS").map(PathBuf::from) else { return };
    fs::create_dir_all(&directory).expect("PM_FUZZ_SEEDS names a directory that can be created");
    for (name, bytes) in seeds {
        fs::write(directory.join(name), bytes).expect("PM_FUZZ_SEEDS can be written to");
    }
}

/// Returns a small image in each format that can be written here.
pub fn images() -> Vec<(String, Vec<u8>)> {
    let bitmap = bitmap(48, 32);
    let formats: Vec<_> = OutputFormat::ALL.into_iter().filter(|format| format.is_built_in()).collect();
    let preset = Preset {
        name: "seed".into(),
        size: Size::LongestEdge(48),
        fit: Fit::Contain,
        formats,
        quality: 80,
        effort: Effort::Fast,
    };
    let processed = process(&bitmap, &[preset], &Limits::default()).expect("a bitmap of our own is read");
    let encoded = processed.renditions.into_iter();
    let encoded = encoded.map(|made| (format!("{}.{}", made.format.as_str(), made.extension()), made.bytes));
    let written = [("seed.bmp", bitmap), ("seed.gif", gif()), ("seed.tif", tiff())];
    encoded.chain(written.map(|(name, bytes)| (name.to_owned(), bytes))).collect()
}

/// 24 bits per pixel, bottom row first, uncompressed.
fn bitmap(width: u32, height: u32) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    for number in [54 + row * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, row * height, 2_835, 2_835, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    for y in 0..height {
        let start = file.len();
        for x in 0..width {
            file.extend([x * 5, y * 7, (x ^ y) * 4].map(|sample| sample.to_le_bytes()[0]));
        }
        file.resize(start + row as usize, 0);
    }
    file
}

/// Four pixels in two colors. A clear code follows each code, so none is longer than three bits.
fn gif() -> Vec<u8> {
    let mut file = b"GIF89a\x02\0\x02\0\x80\0\0\xff\x40\x00\x00\x40\xff,\0\0\0\0\x02\0\x02\0\0\x02".to_vec();
    let codes = [4_u32, 0, 4, 1, 4, 1, 4, 0, 5];
    let bits = codes.iter().enumerate().fold(0_u32, |bits, (place, code)| bits | code << (3 * place));
    let data = &bits.to_le_bytes();
    file.push(data.len() as u8);
    file.extend(data);
    file.extend(b"\0;");
    file
}

/// Eight by eight gray pixels in one strip, uncompressed.
fn tiff() -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    let pixels: Vec<u8> = (0..64).map(|place| place * 4).collect();
    let entries: [(u16, u16, u32); 8] = [
        (256, SHORT, 8),
        (257, SHORT, 8),
        (258, SHORT, 8),
        (259, SHORT, 1),
        (262, SHORT, 1),
        (273, LONG, 8),
        (278, SHORT, 8),
        (279, LONG, 64),
    ];
    let mut file = b"II\x2a\0".to_vec();
    file.extend((8 + pixels.len() as u32).to_le_bytes());
    file.extend(pixels);
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}
