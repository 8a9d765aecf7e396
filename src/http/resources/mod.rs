//! The API's resources, one per file: OpenAPI annotations and handlers.

pub(super) mod events;
pub(super) mod images;
pub(super) mod originals;
pub(super) mod presets;
pub(super) mod product_images;
pub(super) mod products;
pub(super) mod queue;
pub(super) mod resource_metadata;
pub(super) mod status;
pub(super) mod users;
pub(super) mod webhooks;
