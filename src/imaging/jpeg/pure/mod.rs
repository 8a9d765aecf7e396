//! JPEG in pure Rust: our own decoder, and the encoder of the crate jpeg-encoder.

mod baseline;
mod bits;
mod canvas;
mod color;
mod decoder;
#[cfg(not(feature = "libjpeg"))]
mod encoder;
mod entropy;
mod frame;
mod huffman;
mod idct;
mod planes;
mod progressive;
mod tables;
mod upsample;

#[cfg(test)]
mod tests;

pub(in crate::imaging) use decoder::decode;
#[cfg(not(feature = "libjpeg"))]
pub(in crate::imaging) use encoder::encode;
