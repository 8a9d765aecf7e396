//! The cache of product bodies: in Redis for many processes, in this process for one machine, or none.
//!
//! What is stored are the bytes of an answer; nothing here parses them. A reader that finds nothing takes a lease, reads
//! the database and stores what it read only if its lease is still there. A writer deletes value and lease after its
//! commit and before its acknowledgement, so a reader that read too early cannot store what it read. The cache never
//! fails a read: whatever goes wrong is a miss and is counted.

mod memory;
mod redis;

use std::{fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use metrics::counter;
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

/// Which cache to use, with all that it needs.
#[derive(Clone)]
pub enum Engine {
    /// One Redis for all processes.
    Redis {
        /// `redis://` or `rediss://`, with user, password and database number if there are any.
        url: String,
        /// What every key begins with; installations that share a Redis differ here.
        prefix: String,
        /// The database in which every process notes what it changes; without it a process that was cut off from Redis
        /// may read what another one, cut off as well, has changed and not deleted yet.
        notes: Option<Database>,
        /// How long entries are kept.
        lifetimes: Lifetimes,
    },
    /// In this process; other processes' commits are seen through the SQLite file.
    Memory {
        /// The most bytes that are kept.
        max_bytes: u64,
        /// The SQLite file, with its schema.
        database: PathBuf,
        /// How long entries are kept.
        lifetimes: Lifetimes,
    },
    /// None: every read goes to the database.
    Off,
}

/// The cache; clones share it.
#[derive(Clone, Debug)]
pub enum Cache {
    /// In Redis.
    Redis(RedisCache),
    /// In this process.
    Memory(MemoryCache),
    /// Nowhere.
    Off,
}

/// What is known about a product.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// The product's body, as it goes to the client.
    Value(Bytes),
    /// There is no such product.
    Absent,
}

/// The answer to a reader that will go to the database if need be.
#[derive(Debug)]
pub enum Lookup {
    /// It is known.
    Hit(Entry),
    /// It has to be read; hand the permit to [`Cache::fill`] together with what was read.
    Miss(Fill),
}

/// The permit to store what is read from the database **after** it was given.
///
/// It may be empty: somebody else is reading already, or the engine is away. Then storing does nothing.
#[derive(Debug)]
pub struct Fill(Option<Lease>);

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// A product's body; a safety net, since every change deletes it.
    pub value: Duration,
    /// The knowledge that there is no such product.
    pub absent: Duration,
    /// A lease; the longest that a reader may take to read the database and still store the result.
    pub lease: Duration,
}

/// Why the cache could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine is away, slow or refuses; the same call may work later.
    #[error("the cache does not answer")]
    Unavailable(#[source] Cause),
    /// The settings are wrong; it will not work later either.
    #[error("the cache cannot be set up")]
    Config(#[source] Cause),
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Proof of being the one who may store: a value that nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease(Uuid);

impl Cache {
    /// Sets the engine up. A Redis that is away is no error: it is connected to in the background.
    ///
    /// # Errors
    /// [`Error::Config`] if the address cannot be read or the SQLite file cannot be followed.
    pub async fn connect(engine: &Engine) -> Result<Self, Error> {
        Ok(match engine {
            Engine::Redis { url, prefix, notes, lifetimes } => {
                Self::Redis(RedisCache::connect(url, prefix, notes.clone(), *lifetimes).await?)
            }
            Engine::Memory { max_bytes, database, lifetimes } => {
                Self::Memory(MemoryCache::open(*max_bytes, database, *lifetimes)?)
            }
            Engine::Off => Self::Off,
        })
    }

    /// What is known about the product, or `None`; the way of almost every read.
    ///
    /// Redis: one round trip, at most 50 ms, nothing at all while Redis is away. Memory: some microseconds.
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

    /// Returns the product's entry for an inspection of the cache. An outage is an error here, not a miss.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn look(&self, id: ProductId) -> Result<Option<Entry>, Error> {
        match self {
            Self::Redis(cache) => cache.look(id).await,
            Self::Memory(cache) => cache.get(id),
            Self::Off => Ok(None),
        }
    }

    /// What is known about the product, else a permit to store it. Begin to read the database only afterwards.
    ///
    /// Comes after a [`get`](Self::get) that found nothing, so only its failures are counted as requests.
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

    /// Stores what was read with this permit, unless the product changed since the permit was given.
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

    /// Counts one request of this client for all processes together; `None` where there is no Redis or it does not answer.
    pub async fn spend(&self, client: &str, quota: Quota) -> Option<Spent> {
        match self {
            Self::Redis(cache) => cache.spend(client, quota).await.ok(),
            Self::Memory(_) | Self::Off => None,
        }
    }

    /// Forgets these products and makes every permit for them worthless. Call it after the commit and before the write
    /// is acknowledged. Once begun it is carried out, even if the caller stops waiting for it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if Redis could not be told. This process then reads nothing from the cache until Redis has
    /// been told, which happens by itself; other processes know nothing of it, so keep the note of what to delete.
    pub async fn invalidate(&self, ids: &[ProductId]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let told = match self {
            Self::Redis(cache) => cache.invalidate(ids).await,
            Self::Memory(cache) => {
                cache.invalidate(ids);
                Ok(())
            }
            Self::Off => return Ok(()),
        };
        let outcome = if told.is_ok() { "ok" } else { "error" };
        counter!("pm_cache_invalidations_total", "outcome" => outcome).increment(1);
        told
    }

    /// Some of the products that are kept, from `cursor` on, and where the rest begins: 0 begins, and 0 is the end. One may
    /// come twice, and one that is stored meanwhile may be left out.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the engine does not answer.
    pub async fn listed(&self, cursor: u64) -> Result<(u64, Vec<ProductId>), Error> {
        match self {
            Self::Redis(cache) => cache.listed(cursor).await,
            Self::Memory(cache) => cache.listed().map(|ids| (0, ids)),
            Self::Off => Ok((0, Vec::new())),
        }
    }

    /// Whether the engine answers now; takes at most 50 ms.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it does not.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Self::Redis(cache) => cache.check().await,
            Self::Memory(cache) => cache.check(),
            Self::Off => Ok(()),
        }
    }

    /// The engine's name in settings, logs and figures.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Memory(_) => "memory",
            Self::Off => "off",
        }
    }
}

impl Fill {
    /// Whether something can be stored with it at all.
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
    /// The code that clients and operators see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Config(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same call may work later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Lease {
    fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

/// Without the address, which may hold a password.
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
