//! JPEG: one function that decodes and one that encodes, by one of two pairs: pure Rust, or libjpeg with the feature
//! `turbo`.

mod scale;

#[cfg(not(feature = "turbo"))]
mod decoder;
#[cfg(not(feature = "turbo"))]
mod encoder;
#[cfg(not(feature = "turbo"))]
mod watched;

#[cfg(feature = "turbo")]
mod turbo;

#[cfg(feature = "turbo")]
pub(super) use self::turbo::{decode, encode};
#[cfg(not(feature = "turbo"))]
pub(super) use self::{decoder::decode, encoder::encode};

/// The name of the pair that is built in.
pub(super) const BACKEND: &str = if cfg!(feature = "turbo") { "turbo" } else { "pure" };

/// Up to this longer side colours keep their full resolution: at 160 px it lifts SSIMULACRA2 from 61 to 70.
const FULL_COLOUR_EDGE: u32 = 256;
