//! Cache invalidation: rows of changed products, and the change log of a SQLite file.

pub(super) mod changes;
pub mod invalidations;
