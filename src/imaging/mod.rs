//! Turns an untrusted image file into renditions for any browser: upright, sRGB, without metadata.
//!
//! The code is pure and synchronous: no network, no disk, no clock except for timing, no state between images.

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

/// Pipeline revision. Increment it with every change that alters the output for the same bytes and presets.
pub const REVISION: u32 = 1;

/// JPEG encoder: `pure` (Rust) or `turbo` (libjpeg). Decoding is always in Rust.
pub const JPEG_BACKEND: &str = jpeg::BACKEND;
