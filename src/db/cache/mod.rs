//! What caches have to be told: rows of changed products, and the log of changes of a SQLite file.

pub(super) mod changes;
pub mod invalidations;
