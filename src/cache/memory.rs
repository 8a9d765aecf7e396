//! Cache in this process's memory, which also detects other processes' commits to the SQLite file.
//!
//! Before each answer it asks the database whether a process committed. It never waits for a writer, and its content
//! ends with the process.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moka::{Expiry, sync::Cache};

use super::{Entry, Error, Fill, Lease, Lifetimes, Lookup};
use crate::{
    db::{ChangeLog, Changes},
    domain::ProductId,
};

/// Size of an entry besides its body in bytes: key, value and the cache's own data.
const OVERHEAD_BYTES: usize = 200;

/// An in-memory cache of limited size; clones share it.
#[derive(Clone)]
pub struct MemoryCache {
    shared: Arc<Shared>,
}

struct Shared {
    /// Accessed only while `follower` is locked, which makes check-then-store atomic.
    slots: Cache<ProductId, Slot>,
    follower: Mutex<Follower>,
}

struct Follower {
    changes: ChangeLog,
    /// Entries of an earlier epoch count as missing.
    epoch: u64,
}

#[derive(Clone)]
struct Slot {
    epoch: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Entry(Entry),
    Lease(Lease),
}

struct Ends(Lifetimes);

impl MemoryCache {
    /// Opens a cache of at most `max_bytes` that follows the SQLite file `database`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be opened or is locked, [`Error::Config`] if it has no schema.
    pub fn open(max_bytes: u64, database: &Path, lifetimes: Lifetimes) -> Result<Self, Error> {
        let changes = ChangeLog::open(database).map_err(|error| match error.is_transient() {
            true => Error::Unavailable(error.into()),
            false => Error::Config(error.into()),
        })?;
        let slots = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, slot: &Slot| u32::try_from(slot.size_bytes()).unwrap_or(u32::MAX))
            .expire_after(Ends(lifetimes))
            .build();
        Ok(Self { shared: Arc::new(Shared { slots, follower: Mutex::new(Follower { changes, epoch: 0 }) }) })
    }

    pub(super) fn get(&self, id: ProductId) -> Result<Option<Entry>, Error> {
        let follower = self.shared.caught_up()?;
        Ok(match self.shared.find(&follower, id) {
            Some(Content::Entry(entry)) => Some(entry),
            Some(Content::Lease(_)) | None => None,
        })
    }

    pub(super) fn lookup(&self, id: ProductId) -> Result<Lookup, Error> {
        let follower = self.shared.caught_up()?;
        Ok(match self.shared.find(&follower, id) {
            Some(Content::Entry(entry)) => Lookup::Hit(entry),
            Some(Content::Lease(_)) => Lookup::Miss(Fill(None)),
            None => {
                let lease = Lease::new();
                self.shared.slots.insert(id, Slot { epoch: follower.epoch, content: Content::Lease(lease) });
                Lookup::Miss(Fill(Some(lease)))
            }
        })
    }

    pub(super) fn fill(&self, lease: Lease, id: ProductId, entry: Entry) -> Result<bool, Error> {
        // This check finds another process's commit since the lease was issued and removes the lease. The next reader
        // finds a later commit before it reads the entry.
        let follower = self.shared.caught_up()?;
        let leased = matches!(self.shared.find(&follower, id), Some(Content::Lease(held)) if held == lease);
        if leased {
            self.shared.slots.insert(id, Slot { epoch: follower.epoch, content: Content::Entry(entry) });
        }
        Ok(leased)
    }

    pub(super) fn invalidate(&self, ids: &[ProductId]) {
        let _follower = self.shared.lock();
        ids.iter().for_each(|id| self.shared.slots.invalidate(id));
    }

    pub(super) fn listed(&self) -> Result<Vec<ProductId>, Error> {
        let _follower = self.shared.caught_up()?;
        Ok(self.shared.slots.iter().map(|(id, _)| *id).collect())
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.shared.caught_up().map(drop)
    }
}

impl Shared {
    /// Locks the follower and drops entries that changed since the last check.
    ///
    /// The check reads SQLite's version counter in shared memory, which takes a few microseconds without file access.
    /// So it may run on an async thread.
    fn caught_up(&self) -> Result<MutexGuard<'_, Follower>, Error> {
        let mut follower = self.lock();
        match follower.changes.poll() {
            Ok(Changes::None) => Ok(follower),
            Ok(Changes::Products(ids)) => {
                ids.iter().for_each(|id| self.slots.invalidate(id));
                Ok(follower)
            }
            Ok(Changes::Everything) => {
                self.clear(&mut follower);
                Ok(follower)
            }
            Err(error) => {
                self.clear(&mut follower);
                Err(Error::Unavailable(error.into()))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(|poisoned: PoisonError<MutexGuard<'_, Follower>>| {
            // A thread that panicked may have read a change without dropping the product's entry.
            let mut follower = poisoned.into_inner();
            self.clear(&mut follower);
            self.follower.clear_poison();
            follower
        })
    }

    fn clear(&self, follower: &mut Follower) {
        // The library invalidates by timestamp and may keep entries from the same tick. The epoch decides; the call
        // only frees memory.
        follower.epoch += 1;
        self.slots.invalidate_all();
    }

    fn find(&self, follower: &Follower, id: ProductId) -> Option<Content> {
        self.slots.get(&id).filter(|slot| slot.epoch == follower.epoch).map(|slot| slot.content)
    }
}

impl Slot {
    fn size_bytes(&self) -> usize {
        match &self.content {
            Content::Entry(Entry::Value(body)) => OVERHEAD_BYTES + body.len(),
            Content::Entry(Entry::Absent) | Content::Lease(_) => OVERHEAD_BYTES,
        }
    }
}

impl Ends {
    fn of(&self, slot: &Slot) -> Duration {
        match &slot.content {
            Content::Entry(Entry::Value(_)) => self.0.value,
            Content::Entry(Entry::Absent) => self.0.absent,
            Content::Lease(_) => self.0.lease,
        }
    }
}

impl Expiry<ProductId, Slot> for Ends {
    fn expire_after_create(&self, _: &ProductId, slot: &Slot, _: Instant) -> Option<Duration> {
        Some(self.of(slot))
    }

    fn expire_after_update(&self, _: &ProductId, slot: &Slot, _: Instant, _: Option<Duration>) -> Option<Duration> {
        // A lease that is replaced by a value gets a new lifetime; otherwise the library would keep the lease's.
        Some(self.of(slot))
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("entries", &self.shared.slots.entry_count()).finish_non_exhaustive()
    }
}
