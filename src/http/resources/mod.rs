//! One file a resource: its operations, as they are described and as they are answered.

pub(super) mod events;
pub(super) mod images;
pub(super) mod originals;
pub(super) mod pictures;
pub(super) mod product_images;
pub(super) mod products;
pub(super) mod queue;
pub(super) mod resource_metadata;
pub(super) mod status;
pub(super) mod users;
pub(super) mod webhooks;
