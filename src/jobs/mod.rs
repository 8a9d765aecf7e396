//! Job handlers, one per payload.
//!
//! A handler processes a claimed job and returns the result. It claims no jobs, and writes to the catalog only to
//! announce that it starts decoding.

mod failure;
mod fingerprint;
mod process_image;

pub use failure::Failure;
pub use process_image::{Config, Handler, Report, Steps};
