//! JPEG: one function that decodes and one that encodes. Decoding is our own in every build: it takes less time than
//! libjpeg, and less memory. Encoding is by the crate jpeg-encoder, or by libjpeg with the feature `libjpeg`, which `turbo` has in it.

mod pure;
mod scale;
#[cfg(feature = "libjpeg")]
mod turbo;

pub(super) use pure::decode;
#[cfg(not(feature = "libjpeg"))]
pub(super) use pure::encode;
#[cfg(feature = "libjpeg")]
pub(super) use turbo::encode;

/// The name of what is built in.
pub(super) const BACKEND: &str = if cfg!(feature = "libjpeg") { "turbo" } else { "pure" };

/// Up to this longer side colours keep their full resolution: at 160 px it lifts SSIMULACRA2 from 61 to 70.
const FULL_COLOUR_EDGE: u32 = 256;
