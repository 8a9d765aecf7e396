//! How a request travels: from the connection to the handler that takes it, and its answer back.

mod answers;
pub(super) mod cors;
mod explain;
mod finish;
mod gate;
pub(super) mod hosts;
mod incoming;
mod observe;
mod rate_limit;
mod rsa_bits;
pub(super) mod server;
mod service;
mod stall;
pub(super) mod tls;
