//! One connection to one Redis server in one of its lives as a master: the keys that it gives entries, and deleting them.
//!
//! A server that is demoted to a replica takes over what its new master has, and keeps its connections and its run id; promoted
//! again, it has another replication id. So both ids together name a server, and are asked for again while it is in use.

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

/// One answer takes at most this long.
pub(super) const OPERATION_LIMIT: Duration = Duration::from_millis(50);
/// So many keys are deleted or scanned by one command, which keeps each far below the limit of an operation.
pub(super) const KEYS_A_COMMAND: usize = 500;

/// One connection to one run of the server.
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    /// The server in this life of it.
    pub(super) server: Server,
    /// When the server last proved that it is still the same.
    pub(super) proven: Proven,
    /// `GETEX`, which a replica refuses, or `GET` where the server does not know it.
    pub(super) read_command: &'static str,
    /// The epoch that the keys belong to, where there is a database that keeps it.
    pub(super) generation: Option<Generation>,
    /// What every key begins with: installation, run id and epoch included.
    pub(super) key_prefix: String,
    /// What the keys of programs with the earlier schema begin with: these programs must not read old values either.
    pub(super) earlier_key_prefix: String,
    /// What the keys of clients' quotas begin with. Neither run nor epoch is part of it: a server that lost them counts
    /// from zero.
    pub(super) quota_prefix: String,
}

/// A server in one of its lives as a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Changes with each start.
    pub(super) run_id: String,
    /// Changes with each promotion; empty where the server does not tell it.
    replication_id: String,
}

impl Server {
    /// Asks the server who it is.
    pub(super) async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, Error> {
        let about: String = answer(redis::cmd("INFO").arg("server"), connection).await?;
        let replication: String = answer(redis::cmd("INFO").arg("replication"), connection).await?;
        if field(&replication, "role").is_some_and(|role| role != "master") {
            return Err(Error::Unavailable("the server is a replica, which takes no writes".into()));
        }
        let run_id = field(&about, "run_id").ok_or_else(|| Error::Unavailable("the server tells no run id".into()))?;
        let replication_id = field(&replication, "master_replid").unwrap_or_default();
        Ok(Self { run_id: run_id.to_owned(), replication_id: replication_id.to_owned() })
    }

    /// Names the server in the database and in keys.
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

/// When a server last proved that it is the same.
pub(super) struct Proven {
    at: watch::Sender<Instant>,
    under_way: AtomicBool,
}

impl Proven {
    /// A proof holds for this long.
    const HOLDS: Duration = Duration::from_millis(800);
    /// From then on the next reader lets the server be asked again in the background.
    const RENEWED_AFTER: Duration = Duration::from_millis(400);

    /// Proven by an answer to a question that was asked then.
    pub(super) fn at(asked: Instant) -> Self {
        Self { at: watch::Sender::new(asked), under_way: AtomicBool::new(false) }
    }

    /// Whether the caller should let the server be asked; then it calls [`renew`](Self::renew) once.
    pub(super) fn is_due(&self) -> bool {
        self.at.borrow().elapsed() >= Self::RENEWED_AFTER && !self.under_way.swap(true, Ordering::AcqRel)
    }

    /// Notes when the server was asked, if it proved to be the same.
    pub(super) fn renew(&self, asked: Option<Instant>) {
        if let Some(asked) = asked {
            self.at.send_replace(asked);
        }
        self.under_way.store(false, Ordering::Release);
    }

    /// Whether the proof holds; waits up to `limit` for one that is under way.
    pub(super) async fn holds(&self, limit: Duration) -> bool {
        let holds = |at: &Instant| at.elapsed() < Self::HOLDS;
        let mut at = self.at.subscribe();
        tokio::time::timeout(limit, at.wait_for(holds)).await.is_ok_and(|proven| proven.is_ok())
    }
}

impl Live {
    /// The connection, to send one command over; all clones share one socket.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Where the product is kept by this run of the server.
    pub(super) fn key(&self, id: ProductId) -> String {
        format!("{}{id}", self.key_prefix)
    }

    /// Returns the command that reads entries: on a server that knows it, one that a replica refuses.
    pub(super) async fn find_read_command(&mut self) -> Result<(), Error> {
        let (mut connection, mut command) = (self.connection(), redis::cmd("GETEX"));
        command.arg(&self.key_prefix);
        let known = command.query_async::<Option<Vec<u8>>>(&mut connection);
        self.read_command = match tokio::time::timeout(OPERATION_LIMIT, known).await {
            Ok(Ok(_)) => "GETEX",
            // It does not know the command, or this user may not use it.
            Ok(Err(refusal)) if refusal.code().is_some() => "GET",
            Ok(Err(broken)) => return Err(Error::Unavailable(broken.into())),
            Err(late) => return Err(Error::Unavailable(late.into())),
        };
        Ok(())
    }

    /// Deletes a batch; a key that is not there if it is empty: a server that lets nobody delete is of no use.
    pub(super) async fn delete_batch(&self, batch: &Batch) -> Result<(), Error> {
        match &batch.what {
            Deletion::Everything => self.delete_everything().await,
            Deletion::Products(ids) if ids.is_empty() => self.delete_keys(&[self.key_prefix.as_bytes()]).await,
            Deletion::Products(ids) => self.delete_products(ids).await,
        }
    }

    /// Where the client's quota is counted.
    pub(super) fn key_of_client(&self, client: &str) -> String {
        format!("{}{client}", self.quota_prefix)
    }

    /// Deletes these products' entries and leases, those of earlier programs as well.
    pub(super) async fn delete_products<'a>(&self, ids: impl IntoIterator<Item = &'a ProductId>) -> Result<(), Error> {
        let ids: HashSet<_> = ids.into_iter().collect();
        let keys = ids.into_iter().flat_map(|id| [self.key(*id), format!("{}{id}", self.earlier_key_prefix)]);
        let keys: Vec<String> = keys.collect();
        for some in keys.chunks(KEYS_A_COMMAND) {
            self.delete_keys(some).await?;
        }
        Ok(())
    }

    /// Deletes all keys of this run and epoch. A scan returns every key that is there from its beginning to its end; one that is
    /// set meanwhile belongs to a lease given meanwhile, hence to a read that saw the changes.
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

    /// Some of the products that are kept, from `cursor` on, and the next cursor: 0 begins and ends. One may come twice.
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

/// The answer to the command, within the limit of an operation.
pub(super) async fn answer<T: FromRedisValue>(
    command: &Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, Error> {
    match tokio::time::timeout(OPERATION_LIMIT, command.query_async(connection)).await {
        Ok(answered) => answered.map_err(|error| Error::Unavailable(error.into())),
        Err(late) => Err(Error::Unavailable(late.into())),
    }
}

/// Whether a server refuses since it is a replica now, or takes over the data of another one.
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
    fn a_prefix_with_signs_of_patterns_matches_only_itself() {
        assert_eq!(literal_in_pattern("pm*[a]?\\"), "pm\\*\\[a\\]\\?\\\\");
    }
}
