//! The cache inside this process, which also sees what other processes commit to the same SQLite file.
//!
//! Before it answers anything it asks the database whether somebody committed. It never waits for a writer and never
//! outlives the process.

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

/// What an entry weighs beside its body: key, slot and the cache's own books, in bytes.
const OVERHEAD_BYTES: usize = 200;

/// A cache of bounded size in this process; clones share it.
#[derive(Clone)]
pub struct MemoryCache {
    shared: Arc<Shared>,
}

struct Shared {
    /// Touched only while `follower` is locked; that makes "look and then store" one step.
    slots: Cache<ProductId, Slot>,
    follower: Mutex<Follower>,
}

struct Follower {
    changes: ChangeLog,
    /// Slots of an earlier epoch count as empty.
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
    /// A cache of at most `max_bytes` that follows the SQLite file `database`.
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
        // Another process's commit since the lease was given is found here and takes the lease away. One that comes
        // after this look is found by the next reader before it sees the entry.
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
    /// Takes the lock and drops what was committed since the last look, so that nothing found under it is outdated.
    ///
    /// The look is SQLite's version counter, which lies in memory shared by all processes: a few microseconds and no
    /// read of a file, and so allowed on an asynchronous thread.
    fn caught_up(&self) -> Result<MutexGuard<'_, Follower>, Error> {
        let mut follower = self.lock();
        match follower.changes.poll() {
            Ok(Changes::None) => Ok(follower),
            Ok(Changes::Products(ids)) => {
                ids.iter().for_each(|id| self.slots.invalidate(id));
                Ok(follower)
            }
            Ok(Changes::Everything) => {
                self.forget_everything(&mut follower);
                Ok(follower)
            }
            Err(error) => {
                self.forget_everything(&mut follower);
                Err(Error::Unavailable(error.into()))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(|poisoned: PoisonError<MutexGuard<'_, Follower>>| {
            // Whoever panicked may have taken note of a change without dropping the product.
            let mut follower = poisoned.into_inner();
            self.forget_everything(&mut follower);
            self.follower.clear_poison();
            follower
        })
    }

    fn forget_everything(&self, follower: &mut Follower) {
        // The library forgets by time stamp and may keep what was stored in the same tick; the epoch decides, the call
        // only frees the memory.
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
        // A lease that becomes a value starts a new life; the library would keep the lease's.
        Some(self.of(slot))
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("entries", &self.shared.slots.entry_count()).finish_non_exhaustive()
    }
}
