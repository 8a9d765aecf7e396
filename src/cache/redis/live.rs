//! One connection to a Redis server while it remains the same master: keys and deletions.
//!
//! A server that is demoted to a replica takes over its new master's data, and keeps its connections and its run id.
//! When it is promoted again, it has another replication id. So both ids together identify a server, and they are
//! queried again while the connection is in use.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection};
use tokio::sync::watch;

use super::{
    super::Error,
    epoch::Generation,
    pending::{Batch, Deletion},
};
use crate::domain::ProductId;

/// Timeout of one answer.
pub(super) const OPERATION_LIMIT: Duration = Duration::from_millis(50);
/// Keys per delete or scan command, to stay far below the operation timeout.
pub(super) const KEYS_A_COMMAND: usize = 500;

/// A connection to one run of the server.
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    /// The server's identity.
    pub(super) server: Server,
    /// The last confirmation of the server's identity.
    pub(super) proven: Proven,
    /// `GETEX`, which a replica rejects, or `GET` if the server does not know it.
    pub(super) read_command: &'static str,
    /// The epoch in the keys, if a database stores it.
    pub(super) generation: Option<Generation>,
    /// Prefix of every key, including installation, run id and epoch.
    pub(super) key_prefix: String,
    /// Key prefix of programs with the earlier schema, which must not read old values either.
    pub(super) earlier_key_prefix: String,
    /// Prefix of keys of client quotas. It contains neither run nor epoch: a server that lost them counts from zero.
    pub(super) quota_prefix: String,
}

/// Identity of a server between two promotions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Changes with each start.
    pub(super) run_id: String,
    /// Changes with each promotion; empty if the server does not report it.
    replication_id: String,
}

impl Server {
    /// Queries the server's identity.
    pub(super) async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, Error> {
        let about: String = answer(redis::cmd("INFO").arg("server"), connection).await?;
        let replication: String = answer(redis::cmd("INFO").arg("replication"), connection).await?;
        if field(&replication, "role").is_some_and(|role| role != "master") {
            return Err(Error::Unavailable("the Redis server is a replica, which rejects writes".into()));
        }
        let run_id = field(&about, "run_id").ok_or_else(|| Error::Unavailable("Redis reports no run id".into()))?;
        let replication_id = field(&replication, "master_replid").unwrap_or_default();
        Ok(Self { run_id: run_id.to_owned(), replication_id: replication_id.to_owned() })
    }

    /// Returns the server's name for the database and for keys.
    pub(super) fn name(&self) -> String {
        match self.replication_id.as_str() {
            "" => self.run_id.clone(),
            replication_id => format!("{}.{replication_id}", self.run_id),
        }
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The last confirmation of a server's identity.
pub(super) struct Proven {
    at: watch::Sender<Instant>,
    under_way: AtomicBool,
}

impl Proven {
    /// How long a confirmation is valid.
    const VALIDITY: Duration = Duration::from_millis(800);
    /// Age after which the next reader starts another check in the background.
    const RENEWAL_AGE: Duration = Duration::from_millis(400);

    /// Creates a confirmation with the time of its query.
    pub(super) fn at(asked: Instant) -> Self {
        Self { at: watch::Sender::new(asked), under_way: AtomicBool::new(false) }
    }

    /// Returns whether the caller should check the server and then call [`renew`](Self::renew) once.
    pub(super) fn is_due(&self) -> bool {
        self.at.borrow().elapsed() >= Self::RENEWAL_AGE && !self.under_way.swap(true, Ordering::AcqRel)
    }

    /// Records the time of a query that confirmed the server's identity.
    pub(super) fn renew(&self, asked: Option<Instant>) {
        if let Some(asked) = asked {
            self.at.send_replace(asked);
        }
        self.under_way.store(false, Ordering::Release);
    }

    /// Returns whether the confirmation is valid; waits up to `limit` for a running check.
    pub(super) async fn holds(&self, limit: Duration) -> bool {
        let holds = |at: &Instant| at.elapsed() < Self::VALIDITY;
        let mut at = self.at.subscribe();
        tokio::time::timeout(limit, at.wait_for(holds)).await.is_ok_and(|proven| proven.is_ok())
    }
}

impl Live {
    /// Returns the connection for one command; all clones share one socket.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Returns the product's key in this run of the server.
    pub(super) fn key(&self, id: ProductId) -> String {
        format!("{}{id}", self.key_prefix)
    }

    /// Chooses the command that reads entries, preferably one that a replica rejects.
    pub(super) async fn find_read_command(&mut self) -> Result<(), Error> {
        let (mut connection, mut command) = (self.connection(), redis::cmd("GETEX"));
        command.arg(&self.key_prefix);
        let known = command.query_async::<Option<Vec<u8>>>(&mut connection);
        self.read_command = match tokio::time::timeout(OPERATION_LIMIT, known).await {
            Ok(Ok(_)) => "GETEX",
            // The server does not know the command, or the user may not use it.
            Ok(Err(refusal)) if refusal.code().is_some() => "GET",
            Ok(Err(broken)) => return Err(Error::Unavailable(broken.into())),
            Err(late) => return Err(Error::Unavailable(late.into())),
        };
        Ok(())
    }

    /// Deletes a batch.
    /// If it is empty, deletes a missing key, to check that the server permits deletions.
    pub(super) async fn delete_batch(&self, batch: &Batch) -> Result<(), Error> {
        match &batch.what {
            Deletion::Everything => self.delete_everything().await,
            Deletion::Products(ids) if ids.is_empty() => self.delete_keys(&[self.key_prefix.as_bytes()]).await,
            Deletion::Products(ids) => self.delete_products(ids).await,
        }
    }

    /// Returns the key of the client's quota.
    pub(super) fn key_of_client(&self, client: &str) -> String {
        format!("{}{client}", self.quota_prefix)
    }

    /// Deletes these products' entries and leases, including those of earlier programs.
    pub(super) async fn delete_products<'a>(&self, ids: impl IntoIterator<Item = &'a ProductId>) -> Result<(), Error> {
        let ids: HashSet<_> = ids.into_iter().collect();
        let keys = ids.into_iter().flat_map(|id| [self.key(*id), format!("{}{id}", self.earlier_key_prefix)]);
        let keys: Vec<String> = keys.collect();
        for some in keys.chunks(KEYS_A_COMMAND) {
            self.delete_keys(some).await?;
        }
        Ok(())
    }

    /// Deletes all keys of this run and epoch.
    /// A scan returns every key that exists from its start to its end. A key that is added meanwhile belongs to a newer
    /// lease, and so to a read that saw the changes.
    pub(super) async fn delete_everything(&self) -> Result<(), Error> {
        self.delete_all_under(&self.earlier_key_prefix).await?;
        self.delete_all_under(&self.key_prefix).await
    }

    async fn delete_all_under(&self, prefix: &str) -> Result<(), Error> {
        let pattern = format!("{}*", literal_in_pattern(prefix));
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS_A_COMMAND);
            let (next, keys): (u64, Vec<Vec<u8>>) = answer(&scan, &mut self.connection()).await?;
            if !keys.is_empty() {
                self.delete_keys(&keys).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Returns some of the cached products from `cursor` on, and the next cursor.
    /// The cursor is 0 at the start and at the end. A product may appear twice.
    pub(super) async fn scan(&self, cursor: u64) -> RedisResult<(u64, Vec<ProductId>)> {
        let mut scan = redis::cmd("SCAN");
        let pattern = format!("{}*", literal_in_pattern(&self.key_prefix));
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_A_COMMAND);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut self.connection()).await?;
        let id = |key: &String| key.strip_prefix(&self.key_prefix).and_then(|id| id.parse().ok());
        Ok((next, keys.iter().filter_map(id).collect()))
    }

    async fn delete_keys(&self, keys: &[impl redis::ToRedisArgs]) -> Result<(), Error> {
        answer(redis::cmd("DEL").arg(keys), &mut self.connection()).await
    }
}

/// Returns the answer to the command within the operation timeout.
pub(super) async fn answer<T: FromRedisValue>(
    command: &Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, Error> {
    match tokio::time::timeout(OPERATION_LIMIT, command.query_async(connection)).await {
        Ok(answered) => answered.map_err(|error| Error::Unavailable(error.into())),
        Err(late) => Err(Error::Unavailable(late.into())),
    }
}

/// Returns whether the server rejected a command because it was demoted.
/// It is then a replica, or loads the data of another server.
pub(super) fn is_demoted(refusal: &RedisError) -> bool {
    matches!(refusal.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

fn literal_in_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_pattern_characters_matches_only_itself() {
        assert_eq!(literal_in_pattern("pm*[a]?\\"), "pm\\*\\[a\\]\\?\\\\");
    }
}
