//! JPEG: one function that decodes and one that encodes, so that another pair can take their place.

mod decoder;
mod encoder;
mod watched;

pub(super) use decoder::decode;
pub(super) use encoder::encode;
