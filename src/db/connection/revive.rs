//! Replaces connections that stopped working.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::timeout;

use crate::db::{
    Config, Database, Error,
    connection::{
        connect::{Shared, open},
        sqlite::WAIT_LIMIT,
        trim::trim,
    },
};

/// Interval between checks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Timeout of a test write.
const PROOF_LIMIT: Duration = Duration::from_secs(2);
/// Consecutive failed writes after which new connections are tried.
const FAILURES: u32 = 3;

impl Database {
    /// Opens the database with one connection, so a wrong URL fails here.
    /// Connections that stop working are replaced from then on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let database = Self::open(config).await?;
        tokio::spawn(watch(config.clone(), Arc::downgrade(&database.shared)));
        if let Config::Postgres(postgres) = config {
            tokio::spawn(trim(Arc::downgrade(&database.shared), postgres.idle_timeout));
        }
        Ok(database)
    }
}

/// Tests writes periodically and replaces the connections if only new ones work.
/// This happens after a failover by address, when a firewall dropped idle connections, or when the old server became a
/// standby: old connections then neither fail nor work. While transactions still commit, the connections work and are
/// only overloaded. Ends with the database.
async fn watch(config: Config, shared: Weak<Shared>) {
    let mut failures = Failures::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let works = match timeout(PROOF_LIMIT, shared.check()).await {
            Ok(Ok(())) => true,
            // A permanent rejection, such as by a database without a schema, is not the connections' fault.
            Ok(Err(error)) => !error.is_transient(),
            Err(_) => false,
        };
        if failures.are_enough(works, shared.queue().1) && replace(&config, &shared).await {
            failures.in_a_row = 0;
        }
    }
}

/// Consecutive failed writes.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    /// Number of committed transactions at the last failure.
    commits: u64,
}

impl Failures {
    /// Counts a test write, after which `commits` transactions were committed.
    /// Returns whether new connections should be tried.
    fn are_enough(&mut self, works: bool, commits: u64) -> bool {
        let is_only_loaded = commits != self.commits;
        self.commits = commits;
        self.in_a_row = if works || is_only_loaded { 0 } else { self.in_a_row + 1 };
        self.in_a_row >= FAILURES
    }
}

/// Replaces the connections if a write works on new ones.
async fn replace(config: &Config, shared: &Shared) -> bool {
    let queue = shared.queue().0;
    if let Some(file) = &queue.file
        && file.ensure_in_place().await.is_err()
    {
        return false;
    }
    let Ok(Ok(fresh)) = timeout(WAIT_LIMIT, open(config, &shared.link, queue)).await else { return false };
    if !matches!(timeout(PROOF_LIMIT, fresh.prove()).await, Ok(Ok(()))) {
        return false;
    }
    tracing::warn!("replaced the database connections: writes failed on the old ones and work on new ones");
    *shared.pool.write() = fresh;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_are_only_loaded_are_not_replaced() {
        let mut failures = Failures::default();
        for commits in 1..20 {
            assert!(!failures.are_enough(false, commits), "transactions are committed");
        }
        assert!(!failures.are_enough(false, 19));
        assert!(!failures.are_enough(false, 19));
        assert!(failures.are_enough(false, 19), "nothing is committed any more");
        assert!(!failures.are_enough(true, 19), "a write works again");
    }
}
