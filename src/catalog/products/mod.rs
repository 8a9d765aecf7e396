//! Use-cases of products and their pictures: creating, reading, changing and deleting them, one by one or many at once.

pub mod batch;
pub(super) mod create;
mod delete;
pub(super) mod idempotency;
pub(super) mod images;
pub(super) mod intake;
pub(super) mod originals;
mod owner;
pub(super) mod pictures;
pub(super) mod read;
pub(super) mod sources;
pub(super) mod update;
pub(super) mod visible;
