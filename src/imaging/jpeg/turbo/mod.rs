//! JPEG encoding with libjpeg (mozjpeg's, with SIMD). Its only input is our own pixels.

mod encoder;
mod libjpeg;

pub(in crate::imaging) use encoder::encode;
