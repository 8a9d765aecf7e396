//! Limits on the number and memory of request bodies, or of unread responses.
//!
//! When the limit is reached, the client that holds most loses a permit: that of the body or response for which the
//! server has waited longest. A client with more than half of the total loses it at once, another one only after
//! [`MIN_WAIT`]. A body or response that the server is working on never loses its permit.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{code::ErrorCode, http::problem::Problem};

/// Minimum wait for a client before it may lose a permit: enough for a slow connection between two packets.
const MIN_WAIT: Duration = Duration::from_millis(250);
/// Maximum wait for a permit before a request is refused.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Interval between attempts to take a permit from a client.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Maximum number of bodies or responses.
    pub count: usize,
    /// Maximum number of their bytes in memory.
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
    bytes: usize,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Start of the current wait for the client; 0 if not waiting.
    ///
    /// In milliseconds since the pool was created, plus one.
    waits_since: AtomicU64,
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
        Self::unavailable(ErrorCode::Unavailable, no_room)
    }
}

impl BodyPermits {
    /// Creates a pool with these limits.
    pub fn new(room: Room) -> Self {
        Self(Arc::new(Shared { room, began: Instant::now(), table: Mutex::default(), given_back: Notify::new() }))
    }

    /// Takes a permit with `bytes` for `client`; waits up to a second. `lost` is notified if the permit is lost.
    ///
    /// # Errors
    /// [`NoRoom`] after that second.
    pub async fn take(&self, client: IpAddr, bytes: usize, lost: Arc<Notify>) -> Result<BodyPermit, NoRoom> {
        // A body above the limit is admitted alone.
        let bytes = bytes.min(self.0.room.bytes);
        let state = Arc::new(State { waits_since: AtomicU64::new(0), lost });
        let entry = || Entry { client, bytes, state: Arc::clone(&state) };
        let number = self.when_there_is_room(client, (1, bytes), |table| table.insert(entry())).await?;
        Ok(BodyPermit { slots: self.clone(), number, client, state })
    }

    async fn when_there_is_room<T>(
        &self,
        client: IpAddr,
        (count, bytes): (usize, usize),
        mut then: impl FnMut(&mut Table) -> T,
    ) -> Result<T, NoRoom> {
        let until = Instant::now() + MAX_WAIT;
        loop {
            let mut given_back = std::pin::pin!(self.0.given_back.notified());
            // From here on, a released permit wakes this task.
            given_back.as_mut().enable();
            if let Some(value) = self.try_make_room(client, (count, bytes)).map(|mut table| then(&mut table)) {
                return Ok(value);
            }
            if until <= Instant::now() {
                return Err(NoRoom);
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, given_back).await;
        }
    }

    /// Locks the table if enough is free, or can be revoked from clients.
    fn try_make_room(&self, client: IpAddr, (count, bytes): (usize, usize)) -> Option<MutexGuard<'_, Table>> {
        let room = self.0.room;
        let mut table = self.table();
        loop {
            let (scarce, half) = if table.occupied.len() + count > room.count {
                (Scarce::Count, room.count / 2)
            } else if table.bytes + bytes > room.bytes {
                (Scarce::Bytes, room.bytes / 2)
            } else {
                return Some(table);
            };
            let loser = table.loser(scarce, (client, half), self.now())?;
            table.remove(loser)?.state.lose();
        }
    }

    /// Returns the milliseconds since the pool was created, plus one.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Locks the table. A panic cannot leave it inconsistent, so poisoning is ignored.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug)]
enum Scarce {
    Count,
    Bytes,
}

impl Table {
    fn insert(&mut self, entry: Entry) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += entry.bytes;
        self.occupied.insert(number, entry);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.occupied.remove(&number)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn grow(&mut self, number: u64, bytes: usize) {
        if let Some(entry) = self.occupied.get_mut(&number) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Returns the permit to take away: the longest wait of the client that holds most of the scarce resource.
    ///
    /// A client that holds more than `half` is not spared if another client asks.
    fn loser(&self, scarce: Scarce, (asks, half): (IpAddr, usize), now: u64) -> Option<u64> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.occupied.values() {
            *held.entry(entry.client).or_default() += match scarce {
                Scarce::Count => 1,
                Scarce::Bytes => entry.bytes,
            };
        }
        let waited_for = self.occupied.iter().filter_map(|(number, entry)| {
            let held = held.get(&entry.client).copied().unwrap_or_default();
            let spared = if held > half && entry.client != asks { Duration::ZERO } else { MIN_WAIT };
            let waited = entry.state.waited_millis(now, spared)?;
            Some((held, waited, *number))
        });
        waited_for.max().map(|(_, _, number)| number)
    }
}

impl State {
    /// Returns the milliseconds of waiting for the client, if at least `spared`.
    fn waited_millis(&self, now: u64, spared: Duration) -> Option<u64> {
        let since = self.waits_since.load(Ordering::Relaxed);
        let waited = now.saturating_sub(since);
        (since != 0 && u128::from(waited) >= spared.as_millis()).then_some(waited)
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
        let number = self.number;
        self.slots.when_there_is_room(self.client, (0, bytes), |table| table.grow(number, bytes)).await
    }

    /// Records that the server waits for the client.
    pub fn waits(&self) {
        self.state.waits_since.store(self.slots.now(), Ordering::Relaxed);
    }

    /// Records that the server works on the body or response.
    pub fn works(&self) {
        self.state.waits_since.store(0, Ordering::Relaxed);
    }

    /// Waits until the permit is lost.
    pub async fn lost(&self) {
        self.state.lost.notified().await;
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.slots.table().remove(self.number);
        self.slots.0.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const ROOM: Room = Room { count: 3, bytes: 100 };

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn take(slots: &BodyPermits, last: u8, bytes: usize) -> BodyPermit {
        slots.take(client(last), bytes, Arc::default()).await.expect("a permit")
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
        small.grow(20).await.expect("a permit");
        assert!(is_lost(&large) && !is_lost(&small));
    }

    #[tokio::test]
    async fn a_client_with_more_than_half_loses_a_permit_at_once() {
        let slots = old(ROOM);
        let [first, second, _other] = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 2, 0).await];
        first.works();
        age(&second, 1);
        let begun = Instant::now();
        let _new = take(&slots, 3, 0).await;
        assert!(begun.elapsed() < MIN_WAIT && is_lost(&second) && !is_lost(&first));
    }

    #[tokio::test]
    async fn a_permit_that_the_server_works_on_is_never_lost() {
        let slots = old(ROOM);
        let working = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 1, 0).await];
        age(&working[0], 9_000);
        working[0].works();
        let begun = Instant::now();
        assert_eq!(slots.take(client(2), 0, Arc::default()).await.err(), Some(NoRoom));
        assert!(begun.elapsed() >= MAX_WAIT);
    }

    #[tokio::test]
    async fn a_released_permit_goes_to_a_waiting_request() {
        let slots = old(ROOM);
        let full = take(&slots, 1, 100).await;
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(client(2), 50, Arc::default()).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(full);
        assert!(waiting.await.expect("no panic"));
        assert_eq!(slots.table().bytes, 0);
    }
}
