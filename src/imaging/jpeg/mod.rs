//! JPEG: one function that decodes and one that encodes, so that another pair can take their place.

mod decoder;
mod encoder;
mod scale;
mod watched;

pub(super) use decoder::decode;
pub(super) use encoder::encode;

/// The name of the pair that is built in.
pub(super) const BACKEND: &str = "pure";
