//! The database: PostgreSQL or SQLite behind one sea-orm connection. All SQL of the program stands in this room;
//! transactions are begun by the catalogue and by maintenance alone.

pub mod accounts;
pub mod blobs;
pub mod cache;
pub mod connection;
mod entity;
mod error;
pub mod events;
pub mod jobs;
mod lengths;
pub mod maintenance;
pub mod migrate;
pub mod products;
mod statement;

pub use blobs::guard::{Hold, Removal, refer};
pub use cache::changes::{ChangeLog, Changes};
pub use connection::{
    Connection, Transaction,
    beside::{Beside, Unanswered},
    config::{Config, Postgres},
    connect::{Database, Write},
    pooler::Pooler,
    presence::Presence,
};
pub use error::Error;
