//! JPEG by libjpeg (mozjpeg's, with SIMD): about twice as fast as the pure pair, but C code reads a stranger's bytes.

mod decoder;
mod encoder;
mod libjpeg;

pub(in crate::imaging) use decoder::decode;
pub(in crate::imaging) use encoder::encode;
