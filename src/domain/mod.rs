//! What the catalogue is about: products, pictures, users, prices, jobs. Pure: no I/O, no database, no clock of its own.

pub mod address;
mod attempt;
pub mod batch;
mod content;
mod cursor;
mod dead_letter;
mod fields;
mod ids;
mod image;
mod job;
mod patch;
mod price;
mod product;
mod query;
pub mod search;
mod user;

pub use address::AddressPolicy;
pub use attempt::{Attempt, AttemptOutcome};
pub use content::Content;
pub use cursor::{Cursor, CursorKey};
pub use dead_letter::{DeadLetter, DeadQuery, Grave};
pub use fields::{FieldError, Fields, Invalid, Malformed};
pub use ids::{ImageId, JobId, ProductId, UserId};
pub use image::{Facts, Image, ImageSource, ImageStatus, Rendition};
pub use job::{Job, JobPayload, JobState};
pub use patch::{ImagePlan, ImagesPatch, PatchDraft, PresentImage, ProductPatch};
pub use price::Price;
pub use product::{NewProduct, Product, ProductDraft, ProductStatus};
pub use query::{Page, ProductFilter, ProductQuery, Sort, SortKey};
pub use user::{NewUser, User, UserDraft, UserQuery};
