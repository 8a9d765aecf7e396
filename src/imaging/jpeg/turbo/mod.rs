//! JPEG by libjpeg (mozjpeg's, with SIMD): less time than the pure pair takes, but C code reads a stranger's bytes.

mod decoder;
mod encoder;
mod libjpeg;

pub(in crate::imaging) use decoder::decode;
pub(in crate::imaging) use encoder::encode;
