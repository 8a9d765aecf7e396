//! One conformance suite a port, run on each of its engines.

mod blobs;
mod cache;
mod queue;
