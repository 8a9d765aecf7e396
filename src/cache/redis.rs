//! The cache in Redis: keys, stored values, and the scripts that issue and check leases.
//!
//! `connection.rs` connects and checks the connection; nothing here retries.

mod breaker;
mod connection;
mod displaced;
mod earlier;
mod epoch;
mod live;
mod pending;
mod quota;

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{Buf, Bytes};
use redis::{Script, Value};
use tokio::task::JoinHandle;

use self::connection::Link;
pub use self::epoch::SETTLING;
use super::{BodyShape, Entry, Error, Fill, Lease, Lifetimes, Lookup};
use crate::{db::Database, domain::ProductId};

/// Types of stored values, in the first byte.
///
/// A body follows its type and its shape. Programs without shapes store bodies as `V`. Both kinds of programs treat the
/// other's type as a miss.
const BODY: u8 = b'S';
const ABSENT: u8 = b'A';
const LEASE: u8 = b'L';

/// Length of type and shape before a body.
const HEAD_BYTES: usize = 1 + BodyShape::BYTES;

/// Looks up an entry: returns it, or stores a new lease and returns nil.
/// A body of another shape is replaced by the lease. Returns 0 if another reader has a lease.
static LOOKUP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local stored = redis.call('GET', KEYS[1])
         if stored then
             local kind = string.sub(stored, 1, 1)
             if kind == 'L' then return 0 end
             if kind == 'A' or string.sub(stored, 1, string.len(ARGV[3])) == ARGV[3] then return stored end
         end
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
         return false",
    )
});

/// Replaces exactly this lease by the entry; returns 1 if it did.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
         return 1",
    )
});

/// A cache in Redis; clones share one connection.
#[derive(Clone)]
pub struct RedisCache {
    link: Arc<Link>,
    head: Head,
    lifetimes: Lifetimes,
    _supervisor: Arc<Supervisor>,
}

/// Type and shape of this process's bodies, as they are stored.
type Head = [u8; HEAD_BYTES];

/// Stops the supervisor when the last clone of the cache is dropped.
struct Supervisor(JoinHandle<()>);

impl RedisCache {
    /// Tries once to connect to `url`, and continues in the background if that fails.
    /// `prefix` is the prefix of every key. On each new connection, the changes recorded in `notes` are deleted before
    /// anything is read. Bodies of another shape than `shape` are not read.
    ///
    /// # Errors
    /// [`Error::Config`] if `url` is invalid.
    pub async fn connect(
        url: &str,
        prefix: &str,
        notes: Option<Database>,
        shape: BodyShape,
        lifetimes: Lifetimes,
    ) -> Result<Self, Error> {
        let link = Arc::new(Link::new(url, prefix.to_owned(), notes)?);
        link.reconnect().await;
        let supervisor = Supervisor(tokio::spawn(link.clone().supervise()));
        Ok(Self { link, head: head(shape), lifetimes, _supervisor: Arc::new(supervisor) })
    }

    pub(super) async fn get(&self, id: ProductId) -> Result<Option<Entry>, Error> {
        let live = self.link.trusted().await?;
        let mut connection = live.connection();
        let mut command = redis::cmd(live.read_command);
        command.arg(live.key(id));
        let stored: Option<Vec<u8>> = self.link.run(&live, command.query_async(&mut connection)).await?;
        Ok(stored.and_then(|stored| entry(stored, &self.head)))
    }

    /// Returns an entry like [`get`](Self::get), but waits until a new epoch has settled.
    pub(super) async fn look(&self, id: ProductId) -> Result<Option<Entry>, Error> {
        self.link.trusted_soon().await?;
        self.get(id).await
    }

    pub(super) async fn lookup(&self, id: ProductId) -> Result<Lookup, Error> {
        let live = self.link.trusted().await?;
        let mut connection = live.connection();
        let lease = Lease::new();
        let mut script = LOOKUP.key(live.key(id));
        script.arg(&lease.stored()[..]).arg(milliseconds(self.lifetimes.lease)).arg(&self.head[..]);
        Ok(match self.link.run(&live, script.invoke_async(&mut connection)).await? {
            Value::Nil => Lookup::Miss(Fill(Some(lease))),
            Value::BulkString(stored) => entry(stored, &self.head).map_or(Lookup::Miss(Fill(None)), Lookup::Hit),
            _ => Lookup::Miss(Fill(None)),
        })
    }

    pub(super) async fn fill(&self, lease: Lease, id: ProductId, entry: Entry) -> Result<bool, Error> {
        // Keys contain their epoch, so an entry of an old epoch is never read.
        let live = self.link.settled()?;
        let mut connection = live.connection();
        let (stored, lifetime) = match entry {
            Entry::Value(body) => ([&self.head[..], &body[..]].concat(), self.lifetimes.value),
            Entry::Absent => (vec![ABSENT], self.lifetimes.absent),
        };
        let mut script = FILL.key(live.key(id));
        script.arg(&lease.stored()[..]).arg(stored).arg(milliseconds(lifetime));
        self.link.run(&live, script.invoke_async(&mut connection)).await
    }

    pub(super) async fn invalidate(&self, ids: &[ProductId]) -> Result<(), Error> {
        // Runs in a separate task: a client that disconnects cancels the caller's future, but must not interrupt a
        // deletion.
        let (link, ids) = (self.link.clone(), ids.to_vec());
        tokio::spawn(async move { link.delete(ids).await })
            .await
            .unwrap_or_else(|stopped| Err(Error::Unavailable(stopped.into())))
    }

    pub(super) async fn listed(&self, cursor: u64) -> Result<(u64, Vec<ProductId>), Error> {
        let live = self.link.trusted_soon().await?;
        self.link.run(&live, live.scan(cursor)).await
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let live = self.link.settled()?;
        let mut connection = live.connection();
        self.link.run(&live, redis::cmd("PING").query_async(&mut connection)).await
    }
}

impl Lease {
    /// Returns the lease as it is stored in Redis.
    fn stored(self) -> [u8; 17] {
        let mut bytes = [LEASE; 17];
        bytes[1..].copy_from_slice(self.0.as_bytes());
        bytes
    }
}

fn head(shape: BodyShape) -> Head {
    let mut head = [BODY; HEAD_BYTES];
    head[1..].copy_from_slice(&shape.0);
    head
}

/// Parses a stored value; `None` for a lease, or a body of another shape. The body is not copied.
fn entry(stored: Vec<u8>, head: &Head) -> Option<Entry> {
    match *stored.first()? {
        BODY if stored.starts_with(head) => {
            let mut body = Bytes::from(stored);
            body.advance(HEAD_BYTES);
            Some(Entry::Value(body))
        }
        ABSENT => Some(Entry::Absent),
        _ => None,
    }
}

/// Returns milliseconds for Redis, at least 1, since Redis rejects a lifetime of zero.
fn milliseconds(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").field("link", &self.link).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(head: &[u8], body: &[u8]) -> Vec<u8> {
        [head, body].concat()
    }

    #[test]
    fn the_first_byte_is_the_type_of_the_stored_value() {
        let own = head(BodyShape::of(b"one"));
        assert_eq!(entry(stored(&own, b"{}"), &own), Some(Entry::Value(Bytes::from_static(b"{}"))));
        assert_eq!(entry(stored(&own, b""), &own), Some(Entry::Value(Bytes::new())));
        assert_eq!(entry(b"A".to_vec(), &own), Some(Entry::Absent));
        assert_eq!(entry(Lease::new().stored().to_vec(), &own), None);
        assert_eq!(entry(Vec::new(), &own), None);
    }

    #[test]
    fn a_body_of_another_shape_or_without_one_is_a_miss() {
        let (own, other) = (head(BodyShape::of(b"one")), head(BodyShape::of(b"two")));
        assert_eq!(entry(stored(&other, b"{}"), &own), None);
        assert_eq!(entry(own[..HEAD_BYTES - 1].to_vec(), &own), None);
        assert_eq!(entry(b"V{\"id\":1,\"user_id\":\"u\"}".to_vec(), &own), None);
    }

    #[test]
    fn a_body_is_not_copied_out_of_the_received_buffer() {
        let own = head(BodyShape::of(b"one"));
        let received = stored(&own, b"body");
        let address = received.as_ptr() as usize;
        let Some(Entry::Value(body)) = entry(received, &own) else { panic!("a value") };
        assert_eq!(body.as_ptr() as usize, address + HEAD_BYTES);
    }
}
