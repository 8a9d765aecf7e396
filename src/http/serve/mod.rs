//! The server: connections, authorization, routing to handlers, and responses.

mod answers;
mod authorize;
pub(super) mod cors;
mod explain;
mod finish;
pub(super) mod hosts;
mod incoming;
mod observe;
mod rate_limit;
mod rsa_bits;
pub(super) mod server;
mod service;
mod stall;
mod task;
pub(super) mod tls;
