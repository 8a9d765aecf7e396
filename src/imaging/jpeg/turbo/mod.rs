//! JPEG out by libjpeg (mozjpeg's, with SIMD). It is handed nothing but our own pixels.

mod encoder;
mod libjpeg;

pub(in crate::imaging) use encoder::encode;
