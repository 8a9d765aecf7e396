//! From the bytes of a stranger's picture to renditions that any browser shows: upright, in sRGB, without metadata.
//! Pure and synchronous: no network, no disk, no clock but for timing, no state between two pictures.

mod avif;
mod bmp;
mod bytes;
mod color;
mod decode;
mod decoded;
mod describe;
mod encode;
mod error;
mod geometry;
mod gif;
mod header;
mod jpeg;
mod limits;
mod orient;
mod phash;
mod pipeline;
mod pixels;
mod preset;
mod preview;
mod probe;
mod resize;
mod smaller;
mod sniff;
mod strip;
mod tiff;
mod tuning;
mod warning;
mod webp;

#[cfg(test)]
mod tests;

pub use error::{Error, Excess};
pub use limits::Limits;

pub use pipeline::{Processed, Rendered, Steps, memory_needed, process};
pub use preset::{Effort, Fit, Focus, OutputFormat, Preset, Size, default_presets};
pub use preview::preview;
pub use probe::{Probe, probe};
pub use smaller::RenditionFormat;
pub use sniff::SourceFormat;
pub use warning::Warning;

/// Grows with every change after which the same bytes and presets give other bytes than before.
pub const REVISION: u32 = 1;

/// By what JPEG is written: `pure` (Rust alone) or `turbo` (libjpeg). It is read in Rust in either case.
pub const JPEG_BACKEND: &str = jpeg::BACKEND;
