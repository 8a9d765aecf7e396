//! Detects stale reads: a read after an acknowledged write must see that write or a later one.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

/// The newest acknowledged version of each product.
#[derive(Debug, Default)]
pub struct Freshness {
    versions: Mutex<HashMap<i64, i64>>,
}

/// The minimum version that a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor(i64);

impl Freshness {
    /// Records a version that the answer to a write or a read has shown.
    pub fn acknowledged(&self, product: i64, version: i64) {
        let mut versions = self.lock();
        let newest = versions.entry(product).or_default();
        *newest = version.max(*newest);
    }

    /// Returns the minimum version for a read that begins now.
    pub fn floor(&self, product: i64) -> Floor {
        Floor(self.lock().get(&product).copied().unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.versions.lock()
    }
}

impl Floor {
    /// Returns whether a read with this minimum that saw `version` was stale.
    pub fn is_above(self, version: i64) -> bool {
        version < self.0
    }
}
