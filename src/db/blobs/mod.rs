//! Blob references in the database: what references a blob, lost blobs, and locks for removal.

pub mod gc_turn;
pub(super) mod guard;
pub mod losses;
pub mod references;
