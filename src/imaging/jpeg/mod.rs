//! JPEG: one function that decodes and one that encodes, so that another pair can take their place.

mod baseline;
mod bits;
mod canvas;
mod colour;
mod decoder;
mod encoder;
mod entropy;
mod frame;
mod huffman;
mod idct;
mod planes;
mod progressive;
mod scale;
mod tables;
mod upsample;

#[cfg(test)]
mod tests;

pub(super) use decoder::decode;
pub(super) use encoder::encode;

/// The name of the pair that is built in.
pub(super) const BACKEND: &str = "pure";
