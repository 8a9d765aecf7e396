//! The database: PostgreSQL or SQLite behind one sea-orm connection. All SQL of the program stands in this room;
//! transactions are begun by the catalogue alone.

pub mod api_keys;
pub mod attempts;
mod changes;
mod connect;
pub mod crashes;
pub mod dead_letters;
pub mod dispatch;
mod entity;
mod error;
pub mod events;
pub mod finished;
mod guard;
pub mod idempotency;
pub mod images;
pub mod invalidations;
pub mod invariants;
pub mod jobs;
pub mod listing;
pub mod migrate;
pub mod notifications;
pub mod owner;
pub mod products;
pub mod references;
pub mod removals;
pub mod renditions;
pub mod reruns;
pub mod touch;
pub mod transfer;
pub mod users;
pub mod variants;
pub mod words;

pub use changes::{ChangeLog, Changes};
pub use connect::{Config, Database, Write};
pub use error::Error;
pub use guard::{Hold, Removal, refer};
