//! Use cases of products and their images: creating, reading, changing and deleting them, singly or in batches.

pub mod batch;
pub(super) mod chunks;
pub(super) mod create;
mod create_batch;
mod delete;
pub(super) mod idempotency;
pub(super) mod images;
pub(super) mod intake;
mod made;
pub(super) mod originals;
pub(super) mod outcome;
mod owner;
pub(super) mod presets;
pub(super) mod read;
pub(super) mod shape;
pub(super) mod sources;
pub(super) mod update;
pub(super) mod visible;
