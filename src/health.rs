//! Checks every component concurrently, with a time limit each.

use std::time::{Duration, Instant};

use crate::{blobs::Blobs, cache::Cache, db::Database, queue::Queue};

/// Checks the health of the components; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    /// Required: holds all data.
    pub database: Database,
    /// Optional: without it, reads go to the database.
    pub cache: Cache,
    /// Optional: without it, jobs wait in the database.
    pub queue: Queue,
    /// Required: holds the images.
    pub blobs: Blobs,
}

/// State of a component.
#[derive(Clone, Debug)]
pub struct Component {
    /// `database`, `cache`, `queue` or `storage`.
    pub name: &'static str,
    /// Implementation: `postgres`, `redis` …
    pub engine: &'static str,
    /// Error message, if it is unhealthy.
    pub error: Option<String>,
    /// Whether requests need it.
    pub required: bool,
    /// Duration of the check.
    pub latency: Duration,
}

/// Time limit of each check.
const LIMIT: Duration = Duration::from_secs(2);

impl Health {
    /// Returns the state of every component.
    pub async fn check(&self) -> Vec<Component> {
        let (database, cache, queue, storage) = tokio::join!(
            component("database", self.database.name(), true, Box::pin(self.database.check())),
            component("cache", self.cache.name(), false, self.cache.check()),
            component("queue", self.queue.name(), false, self.queue.check()),
            component("storage", self.blobs.name(), true, self.blobs.check()),
        );
        vec![database, cache, queue, storage]
    }
}

async fn component<E: std::error::Error>(
    name: &'static str,
    engine: &'static str,
    required: bool,
    check: impl Future<Output = Result<(), E>>,
) -> Component {
    let began = Instant::now();
    let error = match tokio::time::timeout(LIMIT, check).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no response within {} s", LIMIT.as_secs())),
    };
    Component { name, engine, error, required, latency: began.elapsed() }
}
