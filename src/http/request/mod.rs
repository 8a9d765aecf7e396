//! Reads requests: paths, parameters, bodies, principals, uploads and idempotency keys.

pub(super) mod extract;
mod fingerprint;
pub(super) mod idempotency;
pub(super) mod method;
pub(super) mod params;
pub(super) mod path;
pub(super) mod principal;
pub(super) mod upload;
