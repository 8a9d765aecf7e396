//! Readers and writers that use the cache as the service does, checked against a record of acknowledged writes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pm::{
    cache::{Cache, Entry, Lookup},
    domain::ProductId,
};
use tokio::{sync::Mutex, task::JoinSet};

use super::{eventually, unique};
use crate::support::proxy::Proxy;

const PRODUCTS: usize = 16;
const READERS: usize = 32;
const WRITERS: usize = 8;
const WRITES_A_WRITER: usize = 100;
/// Large enough to exhaust the memory of a small Redis.
const BODY_BYTES: usize = 16 << 10;

struct Model {
    database: Mutex<Rows>,
    /// The newest acknowledged version of each product.
    acknowledged: [AtomicU64; PRODUCTS],
    first: i64,
    hits: AtomicU64,
    done: AtomicBool,
}

struct Rows {
    versions: HashMap<ProductId, u64>,
    /// The log of changes, for an engine that follows it.
    log: Option<rusqlite::Connection>,
}

/// Runs readers and writers, spread over the processes with these caches. No read may be older than the last write
/// acknowledged before it began. Meanwhile the proxy `breaking` is cut, stalled and restored.
pub async fn no_reader_sees_less_than_was_acknowledged(
    processes: &[Cache],
    log: Option<rusqlite::Connection>,
    breaking: Option<&Proxy>,
) {
    let model = Arc::new(Model {
        database: Mutex::new(Rows { versions: HashMap::new(), log }),
        acknowledged: Default::default(),
        first: i64::try_from(unique() >> 2).expect("62 bits"),
        hits: AtomicU64::new(0),
        done: AtomicBool::new(false),
    });
    let mut readers = JoinSet::new();
    for (seed, cache) in (0..READERS).zip(processes.iter().cycle()) {
        readers.spawn(model.clone().read_until_done(cache.clone(), seed));
    }
    let mut writers = JoinSet::new();
    for (seed, cache) in (0..WRITERS).zip(processes.iter().cycle()) {
        writers.spawn(model.clone().write(cache.clone(), seed));
    }

    for fault in [Proxy::cut, Proxy::restore, Proxy::stall, Proxy::restore].into_iter().cycle() {
        breaking.inspect(|proxy| fault(proxy));
        if writers.is_empty() {
            break;
        }
        if let Ok(Some(written)) = tokio::time::timeout(Duration::from_millis(20), writers.join_next()).await {
            written.expect("a writer that does not panic");
        }
    }
    breaking.inspect(|proxy| proxy.restore());

    // Without writers values stay; the readers end once they are served from the cache.
    let served = model.hits.load(Ordering::SeqCst);
    eventually(async || {
        if let Some(ended) = readers.try_join_next() {
            ended.expect("no reader saw an old version");
        }
        (model.hits.load(Ordering::SeqCst) > served + 1_000).then_some(())
    })
    .await;
    model.done.store(true, Ordering::SeqCst);
    while let Some(read) = readers.join_next().await {
        read.expect("no reader saw an old version");
    }
}

impl Model {
    async fn read_until_done(self: Arc<Self>, cache: Cache, seed: usize) {
        let mut round = seed;
        while !self.done.load(Ordering::SeqCst) {
            round += 7;
            let number = round % PRODUCTS;
            let least = self.acknowledged[number].load(Ordering::SeqCst);
            let version = self.version_of(&cache, self.product(number)).await;
            assert!(version >= least, "read version {version} after {least} was acknowledged");
            // Readers without a pause would only measure how busy the machine is.
            if round.is_multiple_of(8) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn write(self: Arc<Self>, cache: Cache, seed: usize) {
        for round in 0..WRITES_A_WRITER {
            let number = (seed * 5 + round * 3) % PRODUCTS;
            let version = self.database.lock().await.change(self.product(number));
            // A write is acknowledged even if its invalidation failed: then this process reads nothing from the cache.
            let _ = cache.invalidate(&[self.product(number)]).await;
            self.acknowledged[number].fetch_max(version, Ordering::SeqCst);
            // Without a pause nothing would ever be cached.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Reads as the service does: from the cache, else from the database, and fills the cache.
    async fn version_of(&self, cache: &Cache, id: ProductId) -> u64 {
        let found = match cache.get(id).await {
            Some(entry) => Lookup::Hit(entry),
            None => cache.lookup(id).await,
        };
        match found {
            Lookup::Hit(entry) => {
                self.hits.fetch_add(1, Ordering::SeqCst);
                version(&entry)
            }
            Lookup::Miss(fill) => {
                let version = self.database.lock().await.versions.get(&id).copied();
                // Time for a write in between.
                tokio::task::yield_now().await;
                cache.fill(fill, id, version.map_or(Entry::Absent, body)).await;
                version.unwrap_or(0)
            }
        }
    }

    fn product(&self, number: usize) -> ProductId {
        ProductId(self.first + i64::try_from(number).expect("a small number"))
    }
}

impl Rows {
    fn change(&mut self, id: ProductId) -> u64 {
        if let Some(log) = &self.log {
            let insert = "INSERT INTO cache_invalidation (product_id, created_at) VALUES (?1, 0)";
            log.execute(insert, [id.0]).expect("a row");
        }
        let version = self.versions.entry(id).or_default();
        *version += 1;
        *version
    }
}

fn body(version: u64) -> Entry {
    let mut body = version.to_be_bytes().to_vec();
    body.resize(BODY_BYTES, 0);
    Entry::Value(Bytes::from(body))
}

fn version(entry: &Entry) -> u64 {
    match entry {
        Entry::Value(body) => u64::from_be_bytes(body[..8].try_into().expect("eight bytes")),
        Entry::Absent => 0,
    }
}
