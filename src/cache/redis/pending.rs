//! The products that changed while Redis could not be told. As long as there is one, nothing in Redis can be trusted.
//!
//! Bounded: past [`MAX_IDS`] it only remembers that everything has to be deleted.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::domain::ProductId;

/// So many ids are remembered one by one; some megabytes.
const MAX_IDS: usize = 100_000;

/// Deletions that are owed to Redis.
#[derive(Debug)]
pub(super) struct Pending {
    owed: Mutex<Owed>,
    /// The number of the newest note, and up to which number deletions have gone through.
    numbers: watch::Sender<Numbers>,
}

/// What to delete, and the number of the newest note among it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) what: Deletion,
    number: u64,
}

/// Some products, or all there are.
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
    /// Up to which number the last attempt failed.
    failed: u64,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { owed: Mutex::default(), numbers: watch::Sender::new(Numbers::default()) }
    }

    /// Notes that these have to be deleted; the number to [`wait`](Self::wait) for.
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

    /// Whether Redis has been told everything.
    pub(super) fn is_clear(&self) -> bool {
        let numbers = self.numbers.borrow();
        numbers.noted == numbers.done
    }

    /// Takes what is owed, to delete it now. It counts as owed until it is [`settled`](Self::settle), and has to be
    /// [put back](Self::put_back) otherwise.
    pub(super) fn take(&self) -> Batch {
        let mut owed = self.lock();
        let number = self.numbers.borrow().noted;
        let Owed { ids, everything } = std::mem::take(&mut *owed);
        Batch { what: if everything { Deletion::Everything } else { Deletion::Products(ids) }, number }
    }

    /// The batch has been deleted. What was noted since it was taken is still owed, even if it is the same product.
    pub(super) fn settle(&self, batch: &Batch) {
        self.numbers.send_modify(|numbers| numbers.done = numbers.done.max(batch.number));
    }

    /// The batch could not be deleted.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut owed = self.lock();
        match batch.what {
            Deletion::Products(ids) => owed.add(ids),
            Deletion::Everything => owed.everything = true,
        }
    }

    /// The number of the newest note.
    pub(super) fn newest(&self) -> u64 {
        self.numbers.borrow().noted
    }

    /// An attempt that began when `number` was the newest came to nothing.
    pub(super) fn fail(&self, number: u64) {
        self.numbers.send_modify(|numbers| numbers.failed = numbers.failed.max(number));
    }

    /// Waits until the note of this number has been settled; false once an attempt at it has failed, or after `limit`.
    pub(super) async fn wait(&self, number: u64, limit: Duration) -> bool {
        let mut numbers = self.numbers.subscribe();
        let ended = numbers.wait_for(|numbers| numbers.done >= number || numbers.failed >= number);
        matches!(tokio::time::timeout(limit, ended).await, Ok(Ok(numbers)) if numbers.done >= number)
    }

    fn lock(&self) -> MutexGuard<'_, Owed> {
        // Nothing between lock and unlock can be left half done, so a panic elsewhere does not matter here.
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_product_noted_while_it_is_being_deleted_stays_owed() {
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
    fn a_batch_that_is_taken_or_put_back_is_still_owed() {
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
