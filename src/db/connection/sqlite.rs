//! How connections to SQLite's file are opened and given back.

use std::{path::Path, time::Duration};

use sea_orm::{
    ConnectOptions,
    sqlx::{self, Connection as _, SqliteConnection},
};

use crate::db::connection::driver::Threads;

/// A writer on SQLite waits this long for its turn or for a connection.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared. Lists and batches are of many texts; one takes up to 20 KiB on SQLite.
pub(super) const STATEMENTS: usize = 100;

/// Connections to the file.
const CONNECTIONS: u32 = 8;
/// What each of them keeps of the file in memory.
const PAGE_CACHE_KIB: u32 = 2_000;

/// Returns the options of the pool.
pub(in crate::db) fn options(path: &Path, threads: &Threads) -> ConnectOptions {
    let threads = threads.clone();
    let file = path.to_owned();
    // The path itself is set below, since not every path can be written as a URL.
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
            // Each connection would map the whole file, and the process would seem to use several times its size.
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

/// Whether no transaction is open on a connection that comes back. When the disk is full SQLite rolls back by itself; the
/// driver's own rollback then fails and it goes on counting a transaction, so that whatever came next on this connection
/// would be committed only in appearance.
///
/// A connection whose thread has died may never answer. It has to be dropped all the same: its transaction keeps the write
/// lock until then.
async fn is_at_rest(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    /// Shorter than a writer waits for the lock.
    const ANSWER_LIMIT: Duration = Duration::from_secs(1);
    // The answer comes after whatever is still under way on the connection.
    let answer = tokio::time::timeout(ANSWER_LIMIT, connection.ping()).await;
    answer.map_err(|_| sqlx::Error::WorkerCrashed)??;
    Ok(!connection.is_in_transaction())
}
