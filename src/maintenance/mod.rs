//! Looking after an installation: backups and their way back, inspections and repairs, and the removal of orphaned blobs.
//! Stands on the catalogue; what it shares with it are the narrow functions that are `pub(crate)` there.

pub mod backup;
mod doctor;
mod gc;
mod losses;
mod progress;

pub use doctor::{Depth, Finding, Invariant, Repair, Repaired};
pub use gc::{Collected, GRACE, Mode};
pub use progress::{Step, Watch};
