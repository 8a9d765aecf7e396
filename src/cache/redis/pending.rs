//! Changed products whose entries could not be deleted from Redis yet.
//!
//! While there is one, no entry in Redis can be trusted. The list is limited: beyond [`MAX_IDS`] it only records that
//! everything must be deleted.

use std::{collections::HashSet, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::domain::ProductId;

/// Maximum ids in the list; some megabytes.
const MAX_IDS: usize = 100_000;

/// Pending deletions.
#[derive(Debug)]
pub(super) struct Pending {
    owed: Mutex<Owed>,
    /// The number of the newest record, and the number up to which deletions succeeded.
    numbers: watch::Sender<Numbers>,
}

/// What to delete, and the number of its newest record.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) what: Deletion,
    number: u64,
}

/// Some products, or all.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    Products(HashSet<ProductId>),
    Everything,
}

#[derive(Debug, Default)]
struct Owed {
    ids: HashSet<ProductId>,
    everything: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    noted: u64,
    done: u64,
    /// The number up to which the last attempt failed.
    failed: u64,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { owed: Mutex::default(), numbers: watch::Sender::new(Numbers::default()) }
    }

    /// Records that these must be deleted; returns the number to [`wait`](Self::wait) for.
    pub(super) fn note(&self, ids: impl IntoIterator<Item = ProductId>) -> u64 {
        let mut owed = self.lock();
        owed.add(ids);
        let mut number = 0;
        self.numbers.send_modify(|numbers| {
            numbers.noted += 1;
            number = numbers.noted;
        });
        number
    }

    /// Returns whether no deletion is pending.
    pub(super) fn is_clear(&self) -> bool {
        let numbers = self.numbers.borrow();
        numbers.noted == numbers.done
    }

    /// Takes the pending deletions in order to perform them.
    /// They stay pending until [`settle`](Self::settle); after a failure call [`put_back`](Self::put_back).
    pub(super) fn take(&self) -> Batch {
        let mut owed = self.lock();
        let number = self.numbers.borrow().noted;
        let Owed { ids, everything } = std::mem::take(&mut *owed);
        Batch { what: if everything { Deletion::Everything } else { Deletion::Products(ids) }, number }
    }

    /// Marks the batch as deleted.
    /// A product that was recorded again after the batch was fetched stays pending.
    pub(super) fn settle(&self, batch: &Batch) {
        self.numbers.send_modify(|numbers| numbers.done = numbers.done.max(batch.number));
    }

    /// Returns a batch that could not be deleted.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut owed = self.lock();
        match batch.what {
            Deletion::Products(ids) => owed.add(ids),
            Deletion::Everything => owed.everything = true,
        }
    }

    /// Returns the number of the newest record.
    pub(super) fn newest(&self) -> u64 {
        self.numbers.borrow().noted
    }

    /// Records that an attempt failed that began when `number` was the newest.
    pub(super) fn fail(&self, number: u64) {
        self.numbers.send_modify(|numbers| numbers.failed = numbers.failed.max(number));
    }

    /// Waits until the record with this number is deleted; `false` after a failed attempt or after `limit`.
    pub(super) async fn wait(&self, number: u64, limit: Duration) -> bool {
        let mut numbers = self.numbers.subscribe();
        let ended = numbers.wait_for(|numbers| numbers.done >= number || numbers.failed >= number);
        matches!(tokio::time::timeout(limit, ended).await, Ok(Ok(numbers)) if numbers.done >= number)
    }

    fn lock(&self) -> MutexGuard<'_, Owed> {
        // No panic can leave the data inconsistent under this lock, so poisoning is ignored.
        self.owed.lock()
    }
}

impl Owed {
    fn add(&mut self, ids: impl IntoIterator<Item = ProductId>) {
        if !self.everything {
            self.ids.extend(ids);
            if self.ids.len() > MAX_IDS {
                *self = Self { ids: HashSet::new(), everything: true };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProductId = ProductId(1);

    #[test]
    fn a_product_recorded_during_its_deletion_stays_pending() {
        let pending = Pending::new();
        pending.note([A]);
        let batch = pending.take();
        pending.note([A]);
        pending.settle(&batch);
        assert!(!pending.is_clear());

        let again = pending.take();
        assert_eq!(again.what, Deletion::Products(HashSet::from([A])));
        pending.settle(&again);
        assert!(pending.is_clear());
    }

    #[test]
    fn a_batch_that_is_fetched_or_returned_is_still_pending() {
        let pending = Pending::new();
        pending.note([A]);
        let batch = pending.take();
        assert!(!pending.is_clear());
        pending.put_back(batch);
        assert!(!pending.is_clear());
        assert_eq!(pending.take().what, Deletion::Products(HashSet::from([A])));
    }

    #[test]
    fn too_many_products_become_everything() {
        let pending = Pending::new();
        pending.note((0..=100_000).map(ProductId));
        pending.note([A]);
        let batch = pending.take();
        assert_eq!(batch.what, Deletion::Everything);
        pending.put_back(batch);
        assert_eq!(pending.take().what, Deletion::Everything);
    }
}
