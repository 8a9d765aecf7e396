//! Tables and SQL statements for PostgreSQL and SQLite, through one sea-orm connection.
//!
//! All SQL of the program is in this module. Only `catalog` and `maintenance` begin transactions. Every function
//! returns [`Error::Unavailable`] if the database does not answer, so the functions do not document it again.

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
    watchdog::Presence,
};
pub use error::Error;
