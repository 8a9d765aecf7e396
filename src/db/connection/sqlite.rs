//! Connections to the SQLite file: options, and the check of returned connections.

use std::{path::Path, time::Duration};

use sea_orm::{
    ConnectOptions,
    sqlx::{self, Connection as _, SqliteConnection},
};

use crate::db::connection::driver::Threads;

/// Maximum wait of a SQLite writer for the write lock or a connection.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// Prepared statements cached per connection. Lists and batches have many texts; a statement takes up to 20 KiB.
pub(super) const STATEMENTS: usize = 100;

/// Connections to the file.
const CONNECTIONS: u32 = 8;
/// Page cache of each connection.
const PAGE_CACHE_KIB: u32 = 2_000;

/// Returns the options of the pool.
pub(in crate::db) fn options(path: &Path, threads: &Threads) -> ConnectOptions {
    let threads = threads.clone();
    let file = path.to_owned();
    // The path is set below, since not every path can be written as a URL.
    let mut options = ConnectOptions::new("sqlite://pm.db");
    options
        .connect_timeout(WAIT_LIMIT)
        .acquire_timeout(WAIT_LIMIT)
        .idle_timeout(Duration::from_secs(600))
        .max_connections(CONNECTIONS);
    options.map_sqlx_sqlite_opts(move |sqlite| {
        sqlite
            .filename(&file)
            .create_if_missing(false)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("journal_mode", "WAL")
            .pragma("synchronous", "FULL")
            // With mmap each connection would map the whole file, and the process would appear several times its size.
            .pragma("mmap_size", "0")
            .pragma("cache_size", format!("-{PAGE_CACHE_KIB}"))
            .statement_cache_capacity(STATEMENTS)
            .thread_name({
                let threads = threads.clone();
                move |number| threads.name(number)
            })
    });
    options.map_sqlx_sqlite_pool_opts(|pool| {
        pool.after_release(|connection, _| Box::pin(async move { is_at_rest(connection).await }))
    });
    options
}

/// Returns whether a returned connection has no open transaction.
/// When the disk is full, SQLite rolls back by itself. The driver's own rollback then fails and it still counts a
/// transaction, so later commits on this connection would not take effect.
///
/// A connection whose thread panicked may never answer. It must be dropped all the same: until then its transaction
/// keeps the write lock.
async fn is_at_rest(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    /// Shorter than a writer's wait for the lock.
    const ANSWER_LIMIT: Duration = Duration::from_secs(1);
    // The answer comes after all commands that are still running on the connection.
    let answer = tokio::time::timeout(ANSWER_LIMIT, connection.ping()).await;
    answer.map_err(|_| sqlx::Error::WorkerCrashed)??;
    Ok(!connection.is_in_transaction())
}
