//! Memory budget shared by all decoders of a process.
//!
//! An image is charged before it is decoded. An image that does not fit now waits; one that can never fit is rejected.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A shared number of bytes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    total: u64,
    blocks: Arc<Semaphore>,
}

/// A reserved part of the budget; dropping it releases the memory.
#[derive(Debug)]
pub struct Charge {
    _blocks: OwnedSemaphorePermit,
}

/// Bytes per semaphore permit; the semaphore cannot count every byte of a large machine.
const BLOCK: u64 = 64 * 1024;

impl Budget {
    /// Creates a budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let blocks = usize::try_from(total / BLOCK).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { total, blocks: Arc::new(Semaphore::new(blocks)) }
    }

    /// Returns the total budget in bytes.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Waits until `bytes` are free and reserves them; returns `None` if they exceed the total.
    pub async fn charge(&self, bytes: u64) -> Option<Charge> {
        if bytes > self.total {
            return None;
        }
        let blocks = u32::try_from(bytes / BLOCK).ok()?.max(1);
        // The semaphore is never closed.
        self.blocks.clone().acquire_many_owned(blocks).await.ok().map(|blocks| Charge { _blocks: blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_charge_over_the_total_is_refused_and_one_that_fits_later_waits() {
        let budget = Budget::new(10 * BLOCK);
        assert!(budget.charge(11 * BLOCK).await.is_none());
        let first = budget.charge(8 * BLOCK).await.expect("it fits");
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.charge(8 * BLOCK).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.expect("no panic"));
    }
}
