//! One connection to one run of a Redis server: the keys that it gives entries, and deleting them.

use std::{collections::HashSet, time::Duration};

use redis::{Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection};

use super::{
    super::Error,
    epoch::Generation,
    pending::{Batch, Deletion},
};
use crate::domain::ProductId;

/// One answer takes at most this long.
pub(super) const OPERATION_LIMIT: Duration = Duration::from_millis(50);
/// So many keys are deleted or scanned by one command, which keeps each far below the limit of an operation.
const KEYS_A_COMMAND: usize = 500;

/// One connection to one run of the server.
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
    /// The run of the server.
    pub(super) run_id: String,
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

impl Live {
    /// The connection, to send one command over; all clones share one socket.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Where the product is kept by this run of the server.
    pub(super) fn key(&self, id: ProductId) -> String {
        format!("{}{id}", self.key_prefix)
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
