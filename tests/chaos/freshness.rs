//! Tells stale reads from fresh ones: whoever reads after a write was acknowledged sees that write or a later one.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The newest version of each product that somebody was told of.
#[derive(Debug, Default)]
pub struct Freshness {
    versions: Mutex<HashMap<i64, i64>>,
}

/// What a read that begins now must at least see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor(i64);

impl Freshness {
    /// Notes that a client was told of this version, by the answer to a write or to a read.
    pub fn told(&self, product: i64, version: i64) {
        let mut versions = self.lock();
        let newest = versions.entry(product).or_default();
        *newest = version.max(*newest);
    }

    /// Asked before a read begins.
    pub fn floor(&self, product: i64) -> Floor {
        Floor(self.lock().get(&product).copied().unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Floor {
    /// Whether a read that began when this was the floor, and saw `version`, was stale.
    pub fn is_above(self, version: i64) -> bool {
        version < self.0
    }
}
