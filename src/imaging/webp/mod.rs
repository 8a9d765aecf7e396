//! WebP, by libwebp.

mod decoder;
mod encoder;

pub(super) use decoder::decode;
pub(super) use encoder::{encode, encode_lossless};
