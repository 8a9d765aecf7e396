//! One conformance suite per port, run on each engine.

mod blobs;
mod cache;
mod queue;
