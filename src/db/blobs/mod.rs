//! What rows say of blobs: who refers to which, what becomes of those that are lost, and who may remove any.

pub mod gc_turn;
pub(super) mod guard;
pub mod losses;
pub mod references;
