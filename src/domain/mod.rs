//! What the catalogue is about: products, pictures, users, prices, jobs. Pure: no I/O, no database, no clock of its own.

pub mod address;
mod api_key;
mod attempt;
pub mod batch;
mod content;
mod cursor;
mod dead_letter;
mod event;
mod fields;
#[cfg(test)]
mod growth;
mod ids;
mod image;
mod job;
mod lease;
mod patch;
mod price;
mod product;
mod query;
mod quota;
mod reader;
mod scope;
pub mod search;
mod user;
mod webhook;

pub use address::AddressPolicy;
pub use api_key::{ApiKey, KeyText, NewApiKey};
pub use attempt::{Attempt, AttemptOutcome};
pub use content::Content;
pub use cursor::{Cursor, CursorKey};
pub use dead_letter::{DeadLetter, DeadQuery, Grave};
pub use event::{Event, EventData, EventFilter, EventKind, EventPosition, EventQuery, NewEvent};
pub use fields::{FieldError, FieldErrors, Fields, Invalid, List, Malformed};
pub use ids::{ApiKeyId, DeliveryId, EventId, ImageId, InstallationId, JobId, ProductId, UserId, WebhookId};
pub use image::{Facts, Image, ImageSource, ImageStatus, Rendition};
pub use job::{Busy, Job, JobPayload, JobState};
pub use lease::{HolderId, Lapsed, Lease, LeaseRule, LeaseWatch};
pub use patch::{ImagePlan, ImagesPatch, PatchDraft, PresentImage, ProductPatch};
pub use price::Price;
pub use product::{NewProduct, Product, ProductDraft, ProductStatus};
pub use query::{Page, ProductFilter, ProductQuery, Sort, SortKey};
pub use quota::{Quota, Spent};
pub use reader::{Reader, without_secrets};
pub use scope::{Scope, Scopes};
pub use user::{NewUser, User, UserDraft, UserQuery};
pub use webhook::{ClaimedDelivery, Delivery, DeliveryQuery, DeliveryState, NewWebhook, Webhook};
