//! Maintenance of an installation: backup and restore, integrity checks and repairs, and garbage collection of blobs.
//!
//! It uses the `pub(crate)` functions of the catalog.

pub mod backup;
mod doctor;
mod gc;
mod losses;
mod progress;

pub use doctor::{Depth, Finding, Invariant, Repair, Repaired};
pub use gc::{Collected, GRACE, Mode};
pub use progress::{Step, Watch};
