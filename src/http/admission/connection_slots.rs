//! Connection slots: a limit on connections in total and per address.
//!
//! When all slots are occupied, the server closes the connection that has kept it waiting longest, so that slow clients
//! cannot lock out others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Version};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::http::headers::forwarded::{Proxies, network_of};

/// The state of a connection: which side waits. Stored in an atomic byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The server waits for the first request.
    New,
    /// The server waits for another request.
    Idle,
    /// The server waits for a request's body.
    Body,
    /// The client waits for the server.
    Working,
}

/// A connection's slot.
#[derive(Debug)]
pub struct ConnectionSlot {
    /// Requests whose response is not fully sent; over HTTP/2 several at a time.
    requests: AtomicUsize,
    phase: AtomicU8,
    /// Whether the connection uses HTTP/2, which allows concurrent requests.
    multiplexed: AtomicBool,
    /// Start of the phase, in milliseconds since the pool was created.
    since: AtomicU64,
    made: Instant,
    opened: Notify,
    evicted: Arc<Notify>,
}

/// A guard for a request in progress on a connection.
#[derive(Debug)]
pub struct RequestGuard(Arc<ConnectionSlot>);

/// All connection slots of a server.
#[derive(Debug)]
pub struct ConnectionSlots {
    made: Instant,
    free: Arc<Semaphore>,
    most_per_address: usize,
    /// Proxies are exempt from the limit per address: they forward many clients.
    proxies: Proxies,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_number: u64,
    occupied: HashMap<u64, Arc<ConnectionSlot>>,
    by_address: HashMap<IpAddr, usize>,
}

/// An occupied slot; released on drop.
#[derive(Debug)]
pub struct OccupiedSlot {
    /// The slot.
    pub connection_slot: Arc<ConnectionSlot>,
    number: u64,
    address: IpAddr,
    slots: Arc<ConnectionSlots>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    /// Creates `most` slots, `most_per_address` of them per address; loopback addresses and `proxies` are exempt.
    pub fn new(most: usize, most_per_address: usize, proxies: Proxies) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            made: Instant::now(),
            free,
            most_per_address: most_per_address.max(1),
            proxies,
            table: Mutex::default(),
        })
    }

    /// Waits for a free slot; evicts the slowest connection while there is none.
    pub async fn permit(&self) -> OwnedSemaphorePermit {
        const POLL_INTERVAL: Duration = Duration::from_millis(50);
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return permit;
            }
            self.evict_slowest();
            let permit = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(POLL_INTERVAL, permit).await {
                return permit;
            }
        }
    }

    /// Takes a slot for a client at `address`; `None` if it reached its limit.
    pub fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<OccupiedSlot> {
        let is_proxy = self.proxies.contain(address);
        let address = network_of(address);
        let mut table = self.table();
        let count = table.by_address.entry(address).or_default();
        if *count >= self.most_per_address && !address.is_loopback() && !is_proxy {
            return None;
        }
        *count += 1;
        let number = table.next_number;
        table.next_number += 1;
        let connection_slot = Arc::new(ConnectionSlot::new(self.made));
        table.occupied.insert(number, Arc::clone(&connection_slot));
        Some(OccupiedSlot { connection_slot, number, address, slots: Arc::clone(self), _permit: permit })
    }

    /// Asks the connection that has kept the server waiting longest to close.
    ///
    /// Spares connections that the server works for, and those that have been waiting only briefly.
    pub fn evict_slowest(&self) {
        let now = millis_since(self.made);
        let table = self.table();
        let waited_for = table
            .occupied
            .values()
            .filter_map(|connection_slot| Some((connection_slot.evictable_for(now)?, connection_slot)));
        if let Some((_, connection_slot)) = waited_for.max_by_key(|(waited, _)| *waited) {
            connection_slot.enter(Phase::Working);
            connection_slot.evicted.notify_one();
        }
    }

    /// Locks the table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Drop for OccupiedSlot {
    fn drop(&mut self) {
        let mut table = self.slots.table();
        table.occupied.remove(&self.number);
        if let Some(count) = table.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(Phase::Idle);
        }
    }
}

impl ConnectionSlot {
    fn new(made: Instant) -> Self {
        Self {
            requests: AtomicUsize::new(0),
            phase: AtomicU8::new(Phase::New as u8),
            multiplexed: AtomicBool::new(false),
            since: AtomicU64::new(millis_since(made)),
            made,
            opened: Notify::new(),
            evicted: Arc::default(),
        }
    }

    /// Records the start of a request; the request ends when the returned guard is dropped.
    pub fn begins<B>(self: &Arc<Self>, request: &Request<B>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if request.version() == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        if self.phase.swap(Phase::Working as u8, Ordering::Relaxed) == Phase::New as u8 {
            self.opened.notify_one();
        }
        RequestGuard(Arc::clone(self))
    }

    /// Records that the server waits for a request's body.
    pub fn waits_for_body(&self) {
        // The connection is not idle while the server works on another of its requests.
        if self.requests.load(Ordering::Relaxed) == 1 {
            self.enter(Phase::Body);
        }
    }

    /// Records that the client waits for the server.
    pub fn works(&self) {
        self.enter(Phase::Working);
    }

    /// Whether the next bytes belong to another request's head.
    pub fn waits_for_head(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Idle as u8 && !self.multiplexed.load(Ordering::Relaxed)
    }

    /// Whether this is an HTTP/1 connection without a request in progress.
    pub fn is_between_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.multiplexed.load(Ordering::Relaxed)
    }

    /// Waits until the connection has been idle for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        let limit_millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            let idle = match self.phase.load(Ordering::Relaxed) == Phase::Idle as u8 {
                true => millis_since(self.made).saturating_sub(self.since.load(Ordering::Relaxed)),
                false => 0,
            };
            if idle >= limit_millis {
                return;
            }
            tokio::time::sleep(Duration::from_millis(limit_millis - idle)).await;
        }
    }

    /// Waits for the first request.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Waits until the slot is needed for another client.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Returns the signal to close the connection.
    ///
    /// It is sent when another client needs the slot, or a permit that this client holds.
    pub fn eviction(&self) -> Arc<Notify> {
        Arc::clone(&self.evicted)
    }

    /// Returns a slot without a server.
    #[cfg(test)]
    pub fn for_tests() -> Arc<Self> {
        Arc::new(Self::new(Instant::now()))
    }

    fn enter(&self, phase: Phase) {
        self.since.store(millis_since(self.made), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns the milliseconds of waiting for the client, if enough for eviction.
    fn evictable_for(&self, now: u64) -> Option<u64> {
        // Long enough for a head over a slow connection, and for a response's last bytes to reach the socket buffers.
        const SPARED_MILLIS: u64 = 250;
        if self.phase.load(Ordering::Relaxed) == Phase::Working as u8 {
            return None;
        }
        let waited = now.saturating_sub(self.since.load(Ordering::Relaxed));
        (waited >= SPARED_MILLIS).then_some(waited)
    }
}

fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<()> {
        Request::new(())
    }

    const CLIENT: &str = "192.0.2.1";

    fn take(slots: &Arc<ConnectionSlots>, address: &str) -> Option<OccupiedSlot> {
        let permit = Arc::clone(&slots.free).try_acquire_owned().expect("a free slot");
        slots.take(permit, address.parse().expect("an address"))
    }

    /// Sets how long a slot has been in its phase.
    fn age(slots: &ConnectionSlots, slot: &OccupiedSlot, millis: u64) {
        slot.connection_slot.since.store(millis_since(slots.made).saturating_sub(millis), Ordering::Relaxed);
    }

    fn aged_slots(most: usize, most_per_address: usize) -> Arc<ConnectionSlots> {
        let mut slots =
            Arc::into_inner(ConnectionSlots::new(most, most_per_address, Proxies::default())).expect("not shared yet");
        slots.made = Instant::now().checked_sub(Duration::from_secs(10)).expect("the machine runs that long");
        Arc::new(slots)
    }

    #[test]
    fn slots_per_address_are_limited_and_released_on_drop() {
        let slots = ConnectionSlots::new(10, 2, Proxies::default());
        let first = take(&slots, CLIENT).expect("a slot");
        let _second = take(&slots, "::ffff:192.0.2.1").expect("a slot");
        assert!(take(&slots, CLIENT).is_none());
        assert!(take(&slots, "192.0.2.2").is_some());
        drop(first);
        assert!(take(&slots, CLIENT).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_loopback_is_exempt() {
        let slots = ConnectionSlots::new(10, 1, Proxies::default());
        let _one = take(&slots, "2001:db8::1").expect("a slot");
        assert!(take(&slots, "2001:db8::2:3").is_none());
        let _other = take(&slots, "2001:db8:0:1::1").expect("another network");
        let local: Vec<_> = ["127.0.0.1", "127.0.0.1", "::1", "::1"].map(|address| take(&slots, address)).into();
        assert!(local.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn the_connection_with_the_longest_wait_is_evicted() {
        let slots = aged_slots(3, 3);
        let [idle, half_sent, working] = [(); 3].map(|()| take(&slots, CLIENT).expect("a slot"));
        drop(idle.connection_slot.begins(&request()));
        age(&slots, &idle, 2_000);
        let _half = half_sent.connection_slot.begins(&request());
        half_sent.connection_slot.waits_for_body();
        age(&slots, &half_sent, 3_000);
        let _work = working.connection_slot.begins(&request());
        age(&slots, &working, 60_000);
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.permit().await }
        });
        half_sent.connection_slot.evicted().await;
        drop(half_sent);
        let _place = waiting.await.expect("a slot");
        drop((idle, working));
    }

    #[test]
    fn a_new_connection_is_not_evicted() {
        let slots = aged_slots(1, 1);
        let new = take(&slots, CLIENT).expect("a slot");
        assert_eq!(new.connection_slot.evictable_for(millis_since(slots.made)), None);
        age(&slots, &new, 300);
        assert!(new.connection_slot.evictable_for(millis_since(slots.made)).is_some());
        let _request = new.connection_slot.begins(&request());
        assert_eq!(new.connection_slot.evictable_for(millis_since(slots.made)), None);
    }

    #[test]
    fn a_multiplexed_connection_is_idle_after_its_last_request() {
        let slots = aged_slots(1, 1);
        let slot = take(&slots, CLIENT).expect("a slot");
        let evictable = || {
            age(&slots, &slot, 2_000);
            slot.connection_slot.evictable_for(millis_since(slots.made)).is_some()
        };
        let (one, other) = (slot.connection_slot.begins(&request()), slot.connection_slot.begins(&request()));
        slot.connection_slot.waits_for_body();
        assert!(!evictable(), "the server works for the other request");
        drop(one);
        assert!(!evictable());
        drop(other);
        assert!(evictable());
    }
}
