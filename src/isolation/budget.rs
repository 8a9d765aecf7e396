//! The memory that all decoders of a process share. A picture is charged before it is decoded; one that does not fit
//! waits, one that can never fit is refused.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes to be shared; cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    total: u64,
    blocks: Arc<Semaphore>,
}

/// A part of the budget; it goes back when this is dropped.
#[derive(Debug)]
pub struct Charge {
    _blocks: OwnedSemaphorePermit,
}

/// The semaphore counts in blocks, since it cannot count every byte of a large machine.
const BLOCK: u64 = 64 * 1024;

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Self {
        let blocks = usize::try_from(total / BLOCK).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { total, blocks: Arc::new(Semaphore::new(blocks)) }
    }

    /// The whole budget in bytes.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Waits until `bytes` are free and takes them; `None` if the whole budget is smaller than that.
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
    async fn what_can_never_fit_is_refused_and_what_does_not_fit_now_waits() {
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
