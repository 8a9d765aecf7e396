//! Replaces connections that do not work any more.

use std::{
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use tokio::time::timeout;

use crate::db::{
    Config, Database, Error,
    connect::{Shared, open},
    sqlite::WAIT_LIMIT,
    trim::trim,
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// A write that is tried takes at most this long.
const PROOF_LIMIT: Duration = Duration::from_secs(2);
/// After this many writes in a row that did not work, new connections are tried.
const FAILURES: u32 = 3;

impl Database {
    /// Opens the database; a connection is made at once, so that a wrong address is seen here. Connections that stop working are
    /// replaced from then on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let database = Self::open(config).await?;
        tokio::spawn(watch(config.clone(), Arc::downgrade(&database.shared)));
        if let Config::Postgres(postgres) = config {
            tokio::spawn(trim(Arc::downgrade(&database.shared), postgres.idle_timeout));
        }
        Ok(database)
    }
}

/// Tries a write now and then. When writes have stopped working while they work on new connections, those take the place of
/// the old ones: after a failover by address, in a firewall that forgot them, or when the old server has become a standby,
/// connections may neither end nor work. While transactions are still committed the connections work, and only too many wait
/// for them. Ends with the database.
async fn watch(config: Config, shared: Weak<Shared>) {
    let (mut failures, mut commits) = (0, 0);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        match timeout(PROOF_LIMIT, shared.check()).await {
            Ok(Ok(())) => failures = 0,
            // A refusal for good, such as by a database that has no schema yet, is not the connections' fault.
            Ok(Err(error)) if !error.is_transient() => failures = 0,
            Ok(Err(_)) | Err(_) => failures += 1,
        }
        let committed = shared.queue().1;
        if committed != commits {
            (failures, commits) = (0, committed);
        }
        if failures >= FAILURES && replace(&config, &shared).await {
            failures = 0;
        }
    }
}

/// Puts new connections in the place of the old ones, if a write works on them.
async fn replace(config: &Config, shared: &Shared) -> bool {
    let Ok(Ok(fresh)) = timeout(WAIT_LIMIT, open(config, &shared.link, shared.queue().0)).await else { return false };
    if !matches!(timeout(PROOF_LIMIT, fresh.prove()).await, Ok(Ok(()))) {
        return false;
    }
    tracing::warn!("writes failed on the connections to the database and work on new ones, which replace them");
    *shared.pool.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    true
}
