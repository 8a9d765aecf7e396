//! A copy of the whole catalogue in a directory, made while everything is running, and its way back into an empty
//! installation on whatever engines.
//!
//! ```text
//! DIR/manifest.json            written last, in one step: without it there is no backup
//! DIR/tables-N/products.ndjson one row a line, columns by name; of the backup that the manifest tells of
//! DIR/blobs/ab/cd/….jpg        what rows refer to; kept from one backup to the next
//! ```

mod check;
mod error;
mod files;
mod manifest;
mod restore;
mod save;

pub use check::{Checked, check};
pub use error::Error;
pub use restore::Restored;
pub use save::Saved;

/// Rows that are in memory at a time.
const PAGE: usize = 500;
/// Blobs that are copied at a time, each in memory.
const AT_ONCE: usize = 4;
