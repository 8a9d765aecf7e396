//! Replaces connections that do not work any more.

use std::{
    sync::{Arc, PoisonError, Weak},
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
    let mut failures = Failures::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let works = match timeout(PROOF_LIMIT, shared.check()).await {
            Ok(Ok(())) => true,
            // A refusal for good, such as by a database that has no schema yet, is not the connections' fault.
            Ok(Err(error)) => !error.is_transient(),
            Err(_) => false,
        };
        if failures.are_enough(works, shared.queue().1) && replace(&config, &shared).await {
            failures.in_a_row = 0;
        }
    }
}

/// Writes in a row that did not work.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    /// Transactions that had been committed by then.
    commits: u64,
}

impl Failures {
    /// Counts a write, after which `commits` transactions have been committed; whether new connections are to be tried.
    fn are_enough(&mut self, works: bool, commits: u64) -> bool {
        let is_only_busy = commits != self.commits;
        self.commits = commits;
        self.in_a_row = if works || is_only_busy { 0 } else { self.in_a_row + 1 };
        self.in_a_row >= FAILURES
    }
}

/// Puts new connections in the place of the old ones, if a write works on them.
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
    tracing::warn!("writes failed on the connections to the database and work on new ones, which replace them");
    *shared.pool.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_are_only_busy_are_not_replaced() {
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
