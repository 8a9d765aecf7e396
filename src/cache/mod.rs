//! Cache of product bodies: in Redis for many processes, in memory on one machine, or off.
//!
//! It stores response bytes and never parses them. On a miss a reader takes a lease, reads the database, and stores the
//! result only if its lease still exists. A writer deletes value and lease after its commit and before its
//! acknowledgment, so a reader with an older result cannot store it. The cache never fails a read: every failure is a
//! miss and is counted.

mod memory;
mod redis;

use std::{fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use metrics::counter;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

pub use self::{
    memory::MemoryCache,
    redis::{RedisCache, SETTLING},
};
use crate::{
    code::ErrorCode,
    db::Database,
    domain::{ProductId, Quota, Spent},
};

/// The type of cache and its settings.
#[derive(Clone)]
pub enum Engine {
    /// One Redis for all processes.
    Redis {
        /// `redis://` or `rediss://`, with optional user, password and database number.
        url: String,
        /// Prefix of every key; installations that share a Redis need different ones.
        prefix: String,
        /// The database in which every process records its changes.
        /// Without it, a process that was disconnected from Redis may read an entry that another disconnected process
        /// has changed but not deleted yet.
        notes: Option<Database>,
        /// The shape of this process's bodies.
        shape: BodyShape,
        /// How long entries are kept.
        lifetimes: Lifetimes,
    },
    /// In this process's memory; commits of other processes are detected in the SQLite file.
    Memory {
        /// Maximum size in bytes.
        max_bytes: u64,
        /// The SQLite file, with its schema.
        database: PathBuf,
        /// How long entries are kept.
        lifetimes: Lifetimes,
    },
    /// No cache: every read queries the database.
    Off,
}

/// The cache; clones share it.
#[derive(Clone, Debug)]
pub enum Cache {
    /// A cache in Redis.
    Redis(RedisCache),
    /// A cache in memory.
    Memory(MemoryCache),
    /// No cache.
    Off,
}

/// Identifies how this process renders products.
///
/// Processes with other settings or of another version may render the same product differently. In a shared cache,
/// each process reads only bodies of its own shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyShape([u8; Self::BYTES]);

/// A cached entry of a product.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The product's response body, in the shape of the process that reads it.
    Value(Bytes),
    /// The product does not exist.
    Absent,
}

/// Result of a lookup by a reader that can query the database.
#[derive(Debug)]
pub enum Lookup {
    /// The entry is cached.
    Hit(Entry),
    /// The entry must be read; pass the permit to [`Cache::fill`] with the result.
    Miss(Fill),
}

/// A permit to store what is read from the database **after** it was issued.
///
/// It may be empty if another reader has one or the cache is unavailable. Storing then does nothing.
#[derive(Debug)]
pub struct Fill(Option<Lease>);

/// How long entries are kept.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Lifetime of a product's body; only a safety net, since every change deletes it.
    pub value: Duration,
    /// Lifetime of the entry for a missing product.
    pub absent: Duration,
    /// Lifetime of a lease: the maximum time from a miss to storing the result.
    pub lease: Duration,
}

/// Error of a cache operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache is unreachable, slow or rejects the command; the same call may succeed later.
    #[error("the cache does not answer")]
    Unavailable(#[source] Cause),
    /// The settings are invalid; the call will never succeed.
    #[error("the cache settings are invalid")]
    Config(#[source] Cause),
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Token that identifies the holder of a lease; unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease(Uuid);

impl Cache {
    /// Sets up the cache. If Redis is unavailable, it connects in the background without an error.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is invalid or the SQLite file cannot be followed.
    pub async fn connect(engine: &Engine) -> Result<Self, Error> {
        Ok(match engine {
            Engine::Redis { url, prefix, notes, shape, lifetimes } => {
                Self::Redis(RedisCache::connect(url, prefix, notes.clone(), *shape, *lifetimes).await?)
            }
            Engine::Memory { max_bytes, database, lifetimes } => {
                Self::Memory(MemoryCache::open(*max_bytes, database, *lifetimes)?)
            }
            Engine::Off => Self::Off,
        })
    }

    /// Returns the product's entry, or `None`; almost every read uses it.
    ///
    /// Redis: one round trip of at most 50 ms; none while Redis is unavailable. Memory: some microseconds.
    pub async fn get(&self, id: ProductId) -> Option<Entry> {
        let found = match self {
            Self::Redis(cache) => cache.get(id).await,
            Self::Memory(cache) => cache.get(id),
            Self::Off => return None,
        };
        let outcome = match &found {
            Ok(Some(Entry::Value(_))) => "hit",
            Ok(Some(Entry::Absent)) => "absent",
            Ok(None) => "miss",
            Err(_) => "error",
        };
        counter!("pm_cache_requests_total", "engine" => self.name(), "outcome" => outcome).increment(1);
        found.ok().flatten()
    }

    /// Returns the product's entry for inspection. An outage is an error here, not a miss.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the cache does not answer.
    pub async fn look(&self, id: ProductId) -> Result<Option<Entry>, Error> {
        match self {
            Self::Redis(cache) => cache.look(id).await,
            Self::Memory(cache) => cache.get(id),
            Self::Off => Ok(None),
        }
    }

    /// Returns the product's entry, or a permit to store it.
    /// The caller must read the database after this call.
    ///
    /// It follows a [`get`](Self::get) that missed, so only its failures are counted as requests.
    pub async fn lookup(&self, id: ProductId) -> Lookup {
        let found = match self {
            Self::Redis(cache) => cache.lookup(id).await,
            Self::Memory(cache) => cache.lookup(id),
            Self::Off => return Lookup::Miss(Fill(None)),
        };
        found.unwrap_or_else(|_| {
            counter!("pm_cache_requests_total", "engine" => self.name(), "outcome" => "error").increment(1);
            Lookup::Miss(Fill(None))
        })
    }

    /// Stores an entry, unless the product changed since the permit was issued.
    pub async fn fill(&self, fill: Fill, id: ProductId, entry: Entry) {
        let Some(lease) = fill.0 else { return };
        let stored = match self {
            Self::Redis(cache) => cache.fill(lease, id, entry).await,
            Self::Memory(cache) => cache.fill(lease, id, entry),
            Self::Off => return,
        };
        let outcome = match stored {
            Ok(true) => "stored",
            Ok(false) => "outdated",
            Err(_) => "error",
        };
        counter!("pm_cache_fills_total", "engine" => self.name(), "outcome" => outcome).increment(1);
    }

    /// Counts a request of this client across all processes; `None` if Redis does not answer or is not used.
    pub async fn spend(&self, client: &str, quota: Quota) -> Option<Spent> {
        match self {
            Self::Redis(cache) => cache.spend(client, quota).await.ok(),
            Self::Memory(_) | Self::Off => None,
        }
    }

    /// Deletes these products' entries and makes their permits invalid.
    /// Call it after the commit and before the write is acknowledged. Once started it completes, even if the caller
    /// stops waiting.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the entries could not be deleted from Redis. This process then reads nothing from the
    /// cache until it has deleted them, which happens automatically. Other processes do not know of it, so the caller
    /// must keep its record of the pending invalidation.
    pub async fn invalidate(&self, ids: &[ProductId]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let result = match self {
            Self::Redis(cache) => cache.invalidate(ids).await,
            Self::Memory(cache) => {
                cache.invalidate(ids);
                Ok(())
            }
            Self::Off => return Ok(()),
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        counter!("pm_cache_invalidations_total", "outcome" => outcome).increment(1);
        result
    }

    /// Returns some of the cached products from `cursor` on, and the next cursor.
    /// The cursor is 0 at the start and at the end. A product may appear twice, and one that is stored meanwhile may be
    /// missing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the cache does not answer.
    pub async fn listed(&self, cursor: u64) -> Result<(u64, Vec<ProductId>), Error> {
        match self {
            Self::Redis(cache) => cache.listed(cursor).await,
            Self::Memory(cache) => cache.listed().map(|ids| (0, ids)),
            Self::Off => Ok((0, Vec::new())),
        }
    }

    /// Checks that the cache answers; takes at most 50 ms.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the cache does not answer.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Self::Redis(cache) => cache.check().await,
            Self::Memory(cache) => cache.check(),
            Self::Off => Ok(()),
        }
    }

    /// Returns the cache's name in settings, logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Memory(_) => "memory",
            Self::Off => "off",
        }
    }
}

impl BodyShape {
    /// Length of a shape before a stored body.
    const BYTES: usize = 8;

    /// Returns the shape of a process that renders a fixed product as `sample`.
    pub fn of(sample: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(sample).into();
        Self(*hash.first_chunk().expect("a hash is longer than a shape"))
    }
}

impl Fill {
    /// Returns whether it permits storing at all.
    pub fn is_permit(&self) -> bool {
        self.0.is_some()
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { value: Duration::from_secs(60 * 60), absent: Duration::from_secs(5), lease: Duration::from_secs(3) }
    }
}

impl Error {
    /// Returns the code that clients and operators see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Config(_) => ErrorCode::Internal,
        }
    }

    /// Returns whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Lease {
    fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

/// Hides the URL, which may contain a password.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis { prefix, .. } => f.debug_struct("Redis").field("prefix", prefix).finish_non_exhaustive(),
            Self::Memory { max_bytes, database, .. } => {
                f.debug_struct("Memory").field("max_bytes", max_bytes).field("database", database).finish()
            }
            Self::Off => f.write_str("Off"),
        }
    }
}
