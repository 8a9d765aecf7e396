//! Measures how many connections of a pool are in use at once.

use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::sqlx::PgPool;

/// The peak number of connections in use since the last call of `take`.
#[derive(Debug, Default)]
pub(in crate::db) struct Demand(AtomicU32);

impl Demand {
    /// Records that one more connection is about to be used.
    pub(in crate::db) fn note(&self, pool: &PgPool) {
        self.0.fetch_max(in_use(pool) + 1, Ordering::Relaxed);
    }

    /// Returns the peak since the last call.
    pub(in crate::db) fn take(&self, pool: &PgPool) -> u32 {
        self.0.swap(0, Ordering::Relaxed).max(in_use(pool))
    }
}

fn in_use(pool: &PgPool) -> u32 {
    pool.size().saturating_sub(u32::try_from(pool.num_idle()).unwrap_or(u32::MAX))
}
