//! What is read of a request: its parameters, its body, who makes it, and the key by which it is carried out once.

pub(super) mod caller;
pub(super) mod extract;
mod fingerprint;
pub(super) mod idempotency;
pub(super) mod upload;
