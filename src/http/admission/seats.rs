//! The places for connections: at most so many in all and from one address. When all are taken, the client that has kept
//! the server waiting longest gives its place up, so that slow ones cannot lock the others out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Version};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::http::headers::forwarded::{Proxies, network_of};

/// Who is waiting for whom on a connection. The values stand in an atomic byte.
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

/// A connection's place.
#[derive(Debug)]
pub struct Seat {
    /// Requests that are not answered to their last byte; over HTTP/2 several at a time.
    requests: AtomicUsize,
    phase: AtomicU8,
    /// Whether several requests at a time may come over the connection: HTTP/2.
    multiplexed: AtomicBool,
    /// When the phase began, in milliseconds since the seats were made.
    since: AtomicU64,
    made: Instant,
    opened: Notify,
    evicted: Arc<Notify>,
}

/// A request on a connection, until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Seat>);

/// All places of a server.
#[derive(Debug)]
pub struct Seats {
    made: Instant,
    free: Arc<Semaphore>,
    most_per_address: usize,
    /// Who brings many clients along, and so may have all places.
    proxies: Proxies,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_number: u64,
    taken: HashMap<u64, Arc<Seat>>,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken; dropping it frees the place.
#[derive(Debug)]
pub struct Taken {
    /// The place.
    pub seat: Arc<Seat>,
    number: u64,
    address: IpAddr,
    seats: Arc<Seats>,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    /// `most` places, of which one address may have `most_per_address`; the machine itself and `proxies` may have all.
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

    /// Waits until a place is free, and makes slow clients give theirs up meanwhile.
    pub async fn permit(&self) -> OwnedSemaphorePermit {
        const LOOK_AGAIN: Duration = Duration::from_millis(50);
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return permit;
            }
            self.evict_slowest();
            let permit = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK_AGAIN, permit).await {
                return permit;
            }
        }
    }

    /// Takes a place for a client at `address`; `None` if it has as many as it may.
    pub fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<Taken> {
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
        let seat = Arc::new(Seat::new(self.made));
        table.taken.insert(number, Arc::clone(&seat));
        Some(Taken { seat, number, address, seats: Arc::clone(self), _permit: permit })
    }

    /// Asks the connection that has kept the server waiting longest to end; connections that are being worked for, and
    /// those that are only just waited for, are spared.
    pub fn evict_slowest(&self) {
        let now = millis_since(self.made);
        let table = self.table();
        let waited_for = table.taken.values().filter_map(|seat| Some((seat.evictable_for(now)?, seat)));
        if let Some((_, seat)) = waited_for.max_by_key(|(waited, _)| *waited) {
            seat.enter(Phase::Working);
            seat.evicted.notify_one();
        }
    }

    /// A panic while the table was held leaves nothing half done in it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut table = self.seats.table();
        table.taken.remove(&self.number);
        if let Some(count) = table.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(Phase::Idle);
        }
    }
}

impl Seat {
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

    /// This request has begun; it ends when the answer to this is dropped.
    pub fn begins<B>(self: &Arc<Self>, request: &Request<B>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if request.version() == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        if self.phase.swap(Phase::Working as u8, Ordering::Relaxed) == Phase::New as u8 {
            self.opened.notify_one();
        }
        Busy(Arc::clone(self))
    }

    /// The server waits for the request's body.
    pub fn waits_for_body(&self) {
        // While it works for another request of the connection, it is not kept waiting.
        if self.requests.load(Ordering::Relaxed) == 1 {
            self.enter(Phase::Body);
        }
    }

    /// The client waits for the server.
    pub fn works(&self) {
        self.enter(Phase::Working);
    }

    /// Whether bytes that come now are those of another request's head.
    pub fn waits_for_head(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Idle as u8 && !self.multiplexed.load(Ordering::Relaxed)
    }

    /// Whether no request is under way on a connection of HTTP/1.
    pub fn is_between_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.multiplexed.load(Ordering::Relaxed)
    }

    /// Ends when no request has come for so long since the last answer.
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

    /// Ends with the begin of the first request.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Ends when the place is needed for somebody else.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// What is told when the place, or what its client holds besides, is needed for somebody else.
    pub fn eviction(&self) -> Arc<Notify> {
        Arc::clone(&self.evicted)
    }

    /// A seat of no server.
    #[cfg(test)]
    pub fn for_tests() -> Arc<Self> {
        Arc::new(Self::new(Instant::now()))
    }

    fn enter(&self, phase: Phase) {
        self.since.store(millis_since(self.made), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// For how many milliseconds the client has kept the server waiting, once that is long enough to send it away.
    fn evictable_for(&self, now: u64) -> Option<u64> {
        // Long enough for a head on a slow line, and for the last bytes of an answer to reach the system's buffers.
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

    const SOMEWHERE: &str = "192.0.2.1";

    fn take(seats: &Arc<Seats>, address: &str) -> Option<Taken> {
        let permit = Arc::clone(&seats.free).try_acquire_owned().expect("a free place");
        seats.take(permit, address.parse().expect("an address"))
    }

    /// Lets a seat look as if it had waited in its phase for long.
    fn age(seats: &Seats, taken: &Taken, millis: u64) {
        taken.seat.since.store(millis_since(seats.made).saturating_sub(millis), Ordering::Relaxed);
    }

    fn old_seats(most: usize, most_per_address: usize) -> Arc<Seats> {
        let mut seats =
            Arc::into_inner(Seats::new(most, most_per_address, Proxies::default())).expect("not shared yet");
        seats.made = Instant::now().checked_sub(Duration::from_secs(10)).expect("the machine runs that long");
        Arc::new(seats)
    }

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let seats = Seats::new(10, 2, Proxies::default());
        let first = take(&seats, SOMEWHERE).expect("a place");
        let _second = take(&seats, "::ffff:192.0.2.1").expect("a place");
        assert!(take(&seats, SOMEWHERE).is_none());
        assert!(take(&seats, "192.0.2.2").is_some());
        drop(first);
        assert!(take(&seats, SOMEWHERE).is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_the_machine_itself_is_not_counted() {
        let seats = Seats::new(10, 1, Proxies::default());
        let _one = take(&seats, "2001:db8::1").expect("a place");
        assert!(take(&seats, "2001:db8::2:3").is_none());
        let _other = take(&seats, "2001:db8:0:1::1").expect("another network");
        let local: Vec<_> = ["127.0.0.1", "127.0.0.1", "::1", "::1"].map(|address| take(&seats, address)).into();
        assert!(local.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn the_longest_waited_for_client_makes_room() {
        let seats = old_seats(3, 3);
        let [idle, half_sent, busy] = [(); 3].map(|()| take(&seats, SOMEWHERE).expect("a place"));
        drop(idle.seat.begins(&request()));
        age(&seats, &idle, 2_000);
        let _half = half_sent.seat.begins(&request());
        half_sent.seat.waits_for_body();
        age(&seats, &half_sent, 3_000);
        let _work = busy.seat.begins(&request());
        age(&seats, &busy, 60_000);
        let waiting = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.permit().await }
        });
        half_sent.seat.evicted().await;
        drop(half_sent);
        let _place = waiting.await.expect("a place");
        drop((idle, busy));
    }

    #[test]
    fn who_only_just_came_is_spared() {
        let seats = old_seats(1, 1);
        let new = take(&seats, SOMEWHERE).expect("a place");
        assert_eq!(new.seat.evictable_for(millis_since(seats.made)), None);
        age(&seats, &new, 300);
        assert!(new.seat.evictable_for(millis_since(seats.made)).is_some());
        let _request = new.seat.begins(&request());
        assert_eq!(new.seat.evictable_for(millis_since(seats.made)), None);
    }

    #[test]
    fn a_connection_with_several_requests_is_idle_after_the_last_of_them() {
        let seats = old_seats(1, 1);
        let taken = take(&seats, SOMEWHERE).expect("a place");
        let evictable = || {
            age(&seats, &taken, 2_000);
            taken.seat.evictable_for(millis_since(seats.made)).is_some()
        };
        let (one, other) = (taken.seat.begins(&request()), taken.seat.begins(&request()));
        taken.seat.waits_for_body();
        assert!(!evictable(), "the server works for the other request");
        drop(one);
        assert!(!evictable());
        drop(other);
        assert!(evictable());
    }
}
