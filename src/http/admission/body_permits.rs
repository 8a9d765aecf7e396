//! Limits on the number and memory of request bodies, or of unread responses.
//!
//! When the limit is reached, a body or response may lose its permit, so that another client's gets one:
//!
//! - A client with more than its fair share (the limit divided by the number of clients) loses if none is released
//!   within [`GRACE`].
//! - Any client loses if it lags: if it has kept the server waiting for [`MAX_LAG`] in all. Transferred bytes pay for
//!   waiting at [`MIN_BYTES_PER_SECOND`], so single bytes, however regular, do not.
//!
//! Among those, the client that holds most loses the body or response that lags most. One that the server is working
//! on never loses its permit.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

use super::client_queues::ClientQueues;
use crate::http::problem::Problem;

/// Lag from which any client may lose a permit: enough for a slow connection between two packets.
const MAX_LAG: Duration = Duration::from_millis(250);
/// Rate at which a client does not lag.
const MIN_BYTES_PER_SECOND: u64 = 16 << 10;
/// Bytes of each body or response that do not count toward the memory limit, so that large ones cannot keep small ones
/// out. Their sum is bounded by the limit on the number.
const UNCOUNTED_BYTES: usize = 16 << 10;
/// Maximum wait for a permit before a request is refused.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Wait for a released permit before clients with more than their share lose one: on a server that is only busy, permits
/// are released all the time.
const GRACE: Duration = Duration::from_millis(100);
/// Interval between attempts to take a permit from a client.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Maximum number of bodies or responses.
    pub count: usize,
    /// Maximum number of their bytes in memory, beyond the first 16 KiB of each.
    pub bytes: usize,
}

/// A pool of permits; cheap to clone.
#[derive(Clone, Debug)]
pub struct BodyPermits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    room: Room,
    began: Instant,
    table: Mutex<Table>,
    given_back: Notify,
    waiting: ClientQueues,
}

#[derive(Debug, Default)]
struct Table {
    next_number: u64,
    bytes: usize,
    occupied: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    /// All bytes; [`Entry::counted`] are those that count.
    bytes: usize,
    state: Arc<State>,
}

/// What a client holds of the scarce resource.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    entries: usize,
    amount: usize,
}

#[derive(Debug)]
struct State {
    /// Start of the current wait for the client or for a permit to work; 0 if the server works.
    ///
    /// In milliseconds since the pool was created, plus one.
    waits_since: AtomicU64,
    /// Earlier waits for the client in milliseconds, less those that bytes have paid for.
    lag: AtomicU64,
    /// Whether the request waits for a permit to work, not for its client.
    is_queued: AtomicBool,
    lost: Arc<Notify>,
}

/// The permit of a body or response; released on drop.
#[derive(Debug)]
pub struct BodyPermit {
    slots: BodyPermits,
    number: u64,
    client: IpAddr,
    state: Arc<State>,
}

/// The limit is reached, and no client can lose a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit on bodies and unread responses in memory is reached")]
pub struct NoRoom;

impl From<NoRoom> for Problem {
    fn from(no_room: NoRoom) -> Self {
        Self::overloaded(no_room)
    }
}

impl BodyPermits {
    /// Creates a pool with these limits.
    pub fn new(room: Room) -> Self {
        Self(Arc::new(Shared {
            room,
            began: Instant::now(),
            table: Mutex::default(),
            given_back: Notify::new(),
            waiting: ClientQueues::default(),
        }))
    }

    /// Takes a permit with `bytes` for `client`; waits up to a second. `lost` is notified if the permit is lost.
    ///
    /// # Errors
    /// [`NoRoom`] after that second.
    pub async fn take(&self, client: IpAddr, bytes: usize, lost: Arc<Notify>) -> Result<BodyPermit, NoRoom> {
        // A body above the limit is admitted alone.
        let bytes = bytes.min(self.0.room.bytes);
        let state = Arc::new(State::new(lost));
        let entry = || Entry { client, bytes, state: Arc::clone(&state) };
        let wanted = |_: &Table| Wanted { client, count: 1, bytes: counted(bytes) };
        let number = self.when_there_is_room(client, wanted, |table| table.insert(entry())).await?;
        Ok(BodyPermit { slots: self.clone(), number, client, state })
    }

    async fn when_there_is_room<T>(
        &self,
        client: IpAddr,
        wanted: impl Fn(&Table) -> Wanted,
        mut then: impl FnMut(&mut Table) -> T,
    ) -> Result<T, NoRoom> {
        let began = Instant::now();
        let mut look = || self.try_make_room(&wanted, GRACE <= began.elapsed()).map(|mut table| then(&mut table));
        if let Some(value) = look() {
            return Ok(value);
        }
        // If thousands of a client's requests looked again and again, others would have to wait for their turns.
        let place = self.0.waiting.place(client);
        let _first = tokio::time::timeout(MAX_WAIT, place.first()).await.map_err(|_elapsed| NoRoom)?;
        loop {
            let mut given_back = std::pin::pin!(self.0.given_back.notified());
            // From here on, a released permit may wake this task.
            given_back.as_mut().enable();
            if let Some(value) = look() {
                return Ok(value);
            }
            if MAX_WAIT <= began.elapsed() {
                return Err(NoRoom);
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, given_back).await;
        }
    }

    /// Locks the table if enough is free, or can be revoked from clients that lag or, if `shares`, hold too much.
    fn try_make_room(&self, wanted: impl Fn(&Table) -> Wanted, shares: bool) -> Option<MutexGuard<'_, Table>> {
        let room = self.0.room;
        let mut table = self.table();
        loop {
            let wanted = wanted(&table);
            let scarce = if table.occupied.len() + wanted.count > room.count {
                Scarce { resource: Resource::Count, limit: room.count, shares }
            } else if wanted.bytes > 0 && table.bytes + wanted.bytes > room.bytes {
                Scarce { resource: Resource::Bytes, limit: room.bytes, shares }
            } else {
                return Some(table);
            };
            let loser = table.loser(scarce, wanted, self.now())?;
            table.remove(loser)?.state.lose();
        }
    }

    /// Returns the milliseconds since the pool was created, plus one.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Locks the table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock()
    }
}

/// A client's demand.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    client: IpAddr,
    count: usize,
    /// Bytes that count toward the memory limit.
    bytes: usize,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug)]
struct Scarce {
    resource: Resource,
    limit: usize,
    /// Whether clients may lose what they hold beyond their fair share.
    shares: bool,
}

#[derive(Clone, Copy, Debug)]
enum Resource {
    Count,
    Bytes,
}

const fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(UNCOUNTED_BYTES)
}

impl Entry {
    const fn counted(&self) -> usize {
        counted(self.bytes)
    }
}

impl Table {
    fn insert(&mut self, entry: Entry) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += entry.counted();
        self.occupied.insert(number, entry);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.occupied.remove(&number)?;
        self.bytes -= entry.counted();
        Some(entry)
    }

    /// Returns the bytes that count when the entry grows by `bytes`.
    fn growth(&self, number: u64, bytes: usize) -> usize {
        self.occupied.get(&number).map_or(0, |entry| counted(entry.bytes + bytes) - entry.counted())
    }

    fn grow(&mut self, number: u64, bytes: usize) {
        self.bytes += self.growth(number, bytes);
        if let Some(entry) = self.occupied.get_mut(&number) {
            entry.bytes += bytes;
        }
    }

    /// Returns the permit to revoke: of the client that holds most of the scarce resource, the one that lags most.
    fn loser(&self, scarce: Scarce, wanted: Wanted, now: u64) -> Option<u64> {
        // Most often none waits for its client, and many requests ask: then this must be cheap.
        let waiting: Vec<_> = self.occupied.iter().filter(|(_, entry)| entry.state.waited(now).is_some()).collect();
        if waiting.is_empty() {
            return None;
        }
        let (mut held, asked) = (self.held(scarce.resource), scarce.resource.amount_of(wanted));
        let asking = held.entry(wanted.client).or_default().amount + asked;
        let share = scarce.limit / held.len().max(1);
        let losers = waiting.into_iter().filter_map(|(number, entry)| {
            let holding = held.get(&entry.client).copied().unwrap_or_default();
            // A client with a single body or response does not keep others out, however large it is.
            let has_several = holding.entries > 1 && entry.client != wanted.client;
            let has_too_much = scarce.shares && has_several && holding.amount > share.max(asking);
            let lag = entry.state.lag(now, has_too_much)?;
            Some((holding.amount, lag, *number))
        });
        losers.max().map(|(_, _, number)| number)
    }

    fn held(&self, resource: Resource) -> HashMap<IpAddr, Holding> {
        let mut held: HashMap<IpAddr, Holding> = HashMap::new();
        for entry in self.occupied.values() {
            let holding = held.entry(entry.client).or_default();
            holding.entries += 1;
            holding.amount += match resource {
                Resource::Count => 1,
                Resource::Bytes => entry.counted(),
            };
        }
        held
    }
}

impl Resource {
    const fn amount_of(self, wanted: Wanted) -> usize {
        match self {
            Self::Count => wanted.count,
            Self::Bytes => wanted.bytes,
        }
    }
}

impl State {
    fn new(lost: Arc<Notify>) -> Self {
        let (waits_since, lag) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { waits_since, lag, is_queued: AtomicBool::new(false), lost }
    }

    /// Returns the lag in milliseconds if the permit may be revoked now.
    fn lag(&self, now: u64, has_too_much: bool) -> Option<u64> {
        let waited = self.waited(now)?;
        if self.is_queued.load(Ordering::Relaxed) {
            // Its client has sent everything, so it loses only what it holds long beyond its share.
            return (has_too_much && u128::from(waited) >= MAX_WAIT.as_millis()).then_some(waited);
        }
        let lag = waited.saturating_add(self.lag.load(Ordering::Relaxed));
        (has_too_much || u128::from(lag) >= MAX_LAG.as_millis()).then_some(lag)
    }

    /// Returns the milliseconds of the current wait, if there is one.
    fn waited(&self, now: u64) -> Option<u64> {
        let since = self.waits_since.load(Ordering::Relaxed);
        (since != 0).then(|| now.saturating_sub(since))
    }

    fn lose(&self) {
        self.lost.notify_one();
    }
}

impl BodyPermit {
    /// Adds bytes to the permit; waits up to a second for free memory.
    ///
    /// # Errors
    /// [`NoRoom`] after that second.
    pub async fn grow(&self, bytes: usize) -> Result<(), NoRoom> {
        let (client, number) = (self.client, self.number);
        let wanted = |table: &Table| Wanted { client, count: 0, bytes: table.growth(number, bytes) };
        self.slots.when_there_is_room(client, wanted, |table| table.grow(number, bytes)).await
    }

    /// Records that the server waits for the client.
    pub fn waits(&self) {
        self.state.is_queued.store(false, Ordering::Relaxed);
        self.state.waits_since.store(self.slots.now(), Ordering::Relaxed);
    }

    /// Records that the request waits for a permit to work.
    pub fn queues(&self) {
        self.state.waits_since.store(self.slots.now(), Ordering::Relaxed);
        self.state.is_queued.store(true, Ordering::Relaxed);
    }

    /// Records that the server works on the body or response, of which `bytes` were transferred since the last call.
    pub fn works(&self, bytes: usize) {
        let state = &self.state;
        let waited = state.waited(self.slots.now()).filter(|_| !state.is_queued.load(Ordering::Relaxed));
        let paid = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000) / MIN_BYTES_PER_SECOND;
        let lag = state.lag.load(Ordering::Relaxed).saturating_add(waited.unwrap_or_default());
        state.lag.store(lag.saturating_sub(paid), Ordering::Relaxed);
        state.waits_since.store(0, Ordering::Relaxed);
    }

    /// Waits until the permit is lost.
    pub async fn lost(&self) {
        self.state.lost.notified().await;
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.slots.table().remove(self.number);
        self.slots.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const KIB: usize = 1 << 10;
    const ROOM: Room = Room { count: 3, bytes: 100 * KIB };

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Takes a permit with `kib` KiB that count.
    async fn take(slots: &BodyPermits, last: u8, kib: usize) -> BodyPermit {
        slots.take(client(last), UNCOUNTED_BYTES + kib * KIB, Arc::default()).await.expect("a permit")
    }

    /// Sets the wait for the permit's client.
    fn age(slot: &BodyPermit, millis: u64) {
        slot.state.waits_since.store(slot.slots.now().saturating_sub(millis), Ordering::Relaxed);
    }

    fn is_lost(slot: &BodyPermit) -> bool {
        slot.lost().now_or_never().is_some()
    }

    /// Creates a pool that is 100 seconds old.
    fn old(room: Room) -> BodyPermits {
        let slots = BodyPermits::new(room);
        let mut shared = Arc::into_inner(slots.0).expect("not shared yet");
        shared.began -= Duration::from_secs(100);
        BodyPermits(Arc::new(shared))
    }

    #[tokio::test]
    async fn the_client_that_holds_most_loses_its_longest_waiting_permit() {
        let slots = old(ROOM);
        let [one, other, alone] = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 2, 90).await];
        age(&one, 1_000);
        age(&other, 2_000);
        age(&alone, 9_000);
        let _new = take(&slots, 3, 0).await;
        assert!(is_lost(&other) && !is_lost(&one) && !is_lost(&alone));
    }

    #[tokio::test]
    async fn when_bytes_are_scarce_the_client_with_most_bytes_loses() {
        let slots = old(ROOM);
        let (small, large) = (take(&slots, 1, 10).await, take(&slots, 2, 80).await);
        age(&small, 9_000);
        age(&large, 300);
        small.grow(20 * KIB).await.expect("a permit");
        assert!(is_lost(&large) && !is_lost(&small));
    }

    #[tokio::test]
    async fn a_client_with_more_than_its_share_loses_a_permit_after_a_grace_period() {
        let slots = old(ROOM);
        let [first, second, _other] = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 2, 0).await];
        first.works(0);
        age(&second, 1);
        let begun = Instant::now();
        let _new = take(&slots, 3, 0).await;
        assert!((GRACE..MAX_LAG).contains(&begun.elapsed()) && is_lost(&second) && !is_lost(&first));
    }

    #[tokio::test]
    async fn clients_that_share_all_permits_lose_some_to_a_third() {
        let slots = old(Room { count: 8, bytes: 0 });
        let mut held = Vec::new();
        for last in [1, 2, 1, 2, 1, 2, 1, 2] {
            held.push(take(&slots, last, 0).await);
        }
        for slot in &held {
            age(slot, 1);
        }
        let _new = [take(&slots, 3, 0).await, take(&slots, 3, 0).await];
        let of = |last| held.iter().filter(|slot| slot.client == client(last) && is_lost(slot)).count();
        assert_eq!((of(1), of(2)), (1, 1));
    }

    #[tokio::test]
    async fn a_body_of_single_bytes_lags_and_a_body_at_the_minimum_rate_does_not() {
        let slots = old(ROOM);
        let [drips, flows, _other] = [take(&slots, 1, 0).await, take(&slots, 2, 0).await, take(&slots, 3, 0).await];
        // A large burst does not pay for later waits.
        drips.works(1 << 20);
        for (slot, bytes) in [(&drips, 1), (&flows, 4 * KIB)] {
            for _ in 0..4 {
                age(slot, 150);
                slot.works(bytes);
            }
            age(slot, 1);
        }
        let _new = take(&slots, 4, 0).await;
        assert!(is_lost(&drips) && !is_lost(&flows));
    }

    #[tokio::test]
    async fn a_permit_that_the_server_works_on_is_never_lost() {
        let slots = old(ROOM);
        let working = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 1, 0).await];
        age(&working[0], 9_000);
        working[0].works(0);
        let begun = Instant::now();
        assert_eq!(slots.take(client(2), 0, Arc::default()).await.err(), Some(NoRoom));
        assert!(begun.elapsed() >= MAX_WAIT);
    }

    #[tokio::test]
    async fn a_complete_body_that_waits_long_for_a_permit_is_lost_only_by_a_client_with_too_much() {
        let slots = old(ROOM);
        let [one, other, alone] = [take(&slots, 1, 40).await, take(&slots, 1, 40).await, take(&slots, 2, 20).await];
        for slot in [&one, &other, &alone] {
            slot.queues();
        }
        age(&one, 5_000);
        alone.grow(10 * KIB).await.expect("a permit");
        assert!(is_lost(&one) && !is_lost(&other) && !is_lost(&alone));
        assert_eq!(alone.grow(60 * KIB).await, Err(NoRoom), "neither client has several bodies now");
    }

    #[tokio::test]
    async fn large_bodies_do_not_keep_small_ones_out() {
        let slots = old(ROOM);
        let _large = take(&slots, 1, 100).await;
        let _small = take(&slots, 2, 0).await;
    }

    #[tokio::test]
    async fn a_released_permit_goes_to_a_waiting_request() {
        let slots = old(ROOM);
        let full = take(&slots, 1, 100).await;
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(client(2), 50 * KIB, Arc::default()).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(full);
        assert!(waiting.await.expect("no panic"));
        assert_eq!((slots.table().bytes, slots.0.waiting.is_empty()), (0, true));
    }
}
