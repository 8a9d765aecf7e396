//! Whether each component answers, asked of all at once with a time limit each.

use std::time::{Duration, Instant};

use crate::{blobs::Blobs, cache::Cache, db::Database, queue::Queue};

/// Asks the engines how they are; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    /// The truth.
    pub database: Database,
    /// Not required: reads go on from the database.
    pub cache: Cache,
    /// Not required to take requests in: jobs wait in the database.
    pub queue: Queue,
    /// Where pictures are.
    pub blobs: Blobs,
}

/// A component's state.
#[derive(Clone, Debug)]
pub struct Component {
    /// `database`, `cache`, `queue` or `storage`.
    pub name: &'static str,
    /// What stands behind it: `postgres`, `redis` …
    pub engine: &'static str,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Whether requests cannot be answered without it.
    pub required: bool,
    /// How long the answer took.
    pub latency: Duration,
}

/// Each component answers within this, or does not answer.
const LIMIT: Duration = Duration::from_secs(2);

impl Health {
    /// The state of every component.
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
        Err(_) => Some(format!("no answer within {} s", LIMIT.as_secs())),
    };
    Component { name, engine, error, required, latency: began.elapsed() }
}
