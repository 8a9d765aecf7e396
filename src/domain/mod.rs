//! What the catalogue is about: products, pictures, users, prices, jobs. Pure: no I/O, no database, no clock of its own.

pub mod address;
mod attempt;
mod content;
mod cursor;
mod dead_letter;
mod event;
mod fields;
mod ids;
mod image;
mod job;
mod price;
mod product;
mod query;
mod user;

pub use address::AddressPolicy;
pub use attempt::{Attempt, AttemptOutcome};
pub use content::Content;
pub use cursor::{Cursor, CursorKey};
pub use dead_letter::{DeadLetter, DeadQuery, Grave};
pub use event::{Event, EventData, EventFilter, EventKind, EventPosition, EventQuery, NewEvent};
pub use fields::{FieldError, Fields, Invalid, Malformed};
pub use ids::{EventId, ImageId, JobId, ProductId, UserId};
pub use image::{Facts, Image, ImageSource, ImageStatus, Rendition};
pub use job::{Job, JobPayload, JobState};
pub use price::Price;
pub use product::{NewProduct, Product, ProductDraft, ProductStatus};
pub use query::{Page, ProductFilter, ProductQuery, Sort, SortKey};
pub use user::{NewUser, User, UserDraft, UserQuery};
