//! JPEG in Rust alone: our own decoder, and the encoder of the crate jpeg-encoder.

mod baseline;
mod bits;
mod canvas;
mod colour;
pub(in crate::imaging) mod decoder;
mod encoder;
mod entropy;
mod frame;
mod huffman;
mod idct;
mod planes;
mod progressive;
mod tables;
mod upsample;

pub(in crate::imaging) use decoder::decode;
pub(in crate::imaging) use encoder::encode;
