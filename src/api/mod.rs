//! JSON of requests and responses, one file per resource.
//!
//! HTTP, the cache and the command line's `-o json` share it.

mod images;
mod links;
mod page;
mod products;
mod queue;
mod users;
mod webhooks;

pub use images::{
    ImageBody, ImageFilesShape, ImageUrl, MoreImagesShape, OneImageShape, SeveralImagesShape, source_link,
};
pub use links::Links;
pub use page::PageBody;
pub use products::{BatchObjectShape, BatchShape, NewProductShape, ProductBody, ProductPatchShape};
pub use queue::{DeadLetterBody, QueueBody};
pub use users::{NewUserShape, UserBody};
pub use webhooks::{DeliveryBody, NewWebhookShape, WebhookBody};
