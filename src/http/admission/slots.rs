//! A bound on what waits for clients: so many bodies or answers at once, and so many bytes of them in memory.
//!
//! No client can hold the room that others need: when there is none left, the client that holds most loses the body or
//! answer over which it has kept the server waiting longest; at once if it holds more than half, else after a moment.
//! What the server itself is busy with is never lost.

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

/// A client that is waited for is spared for so long: enough for a slow line between two packets.
const SPARED: Duration = Duration::from_millis(250);
/// How long to wait for room before a request is refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// While nothing is given back, clients that were spared a moment ago are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How much there may be at a time.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Bodies or answers.
    pub count: usize,
    /// Bytes of all of them that are in memory.
    pub bytes: usize,
}

/// All slots of a kind; cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Shared>);

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
    taken: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    bytes: usize,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// When the wait for the client began, in milliseconds since the slots were made, plus one; 0 while it is not waited for.
    waits_since: AtomicU64,
    lost: Arc<Notify>,
}

/// One body or answer; its room is given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    number: u64,
    client: IpAddr,
    state: Arc<State>,
}

/// There is no room, and nobody who could be asked to give some up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for more, and nobody to give some up")]
pub struct NoRoom;

impl From<NoRoom> for Problem {
    fn from(no_room: NoRoom) -> Self {
        Self::unavailable(ErrorCode::Unavailable, no_room)
    }
}

impl Slots {
    /// So much room, all of it free.
    pub fn new(room: Room) -> Self {
        Self(Arc::new(Shared { room, began: Instant::now(), table: Mutex::default(), given_back: Notify::new() }))
    }

    /// Takes a slot with `bytes` for `client`, and waits up to a second for room. `lost` is told if the slot is lost.
    ///
    /// # Errors
    /// [`NoRoom`] after that second.
    pub async fn take(&self, client: IpAddr, bytes: usize, lost: Arc<Notify>) -> Result<Slot, NoRoom> {
        // What is larger than all the room is let in alone.
        let bytes = bytes.min(self.0.room.bytes);
        let state = Arc::new(State { waits_since: AtomicU64::new(0), lost });
        let entry = || Entry { client, bytes, state: Arc::clone(&state) };
        let number = self.when_there_is_room(client, (1, bytes), |table| table.insert(entry())).await?;
        Ok(Slot { slots: self.clone(), number, client, state })
    }

    async fn when_there_is_room<T>(
        &self,
        client: IpAddr,
        (count, bytes): (usize, usize),
        mut then: impl FnMut(&mut Table) -> T,
    ) -> Result<T, NoRoom> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut given_back = std::pin::pin!(self.0.given_back.notified());
            // From here on, what is given back wakes this one.
            given_back.as_mut().enable();
            if let Some(value) = self.try_make_room(client, (count, bytes)).map(|mut table| then(&mut table)) {
                return Ok(value);
            }
            if until <= Instant::now() {
                return Err(NoRoom);
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, given_back).await;
        }
    }

    /// The table with room for so much, if some was free or could be taken from somebody.
    fn try_make_room(&self, client: IpAddr, (count, bytes): (usize, usize)) -> Option<MutexGuard<'_, Table>> {
        let room = self.0.room;
        let mut table = self.table();
        loop {
            let (scarce, half) = if table.taken.len() + count > room.count {
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

    /// Milliseconds since the slots were made, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// A panic while the table was held leaves nothing half done in it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is too little of.
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
        self.taken.insert(number, entry);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.taken.remove(&number)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    fn grow(&mut self, number: u64, bytes: usize) {
        if let Some(entry) = self.taken.get_mut(&number) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Of the client that holds most of what is scarce, the slot over which it has kept the server waiting longest. A client that
    /// holds more than `half` is not spared where another one asks.
    fn loser(&self, scarce: Scarce, (asks, half): (IpAddr, usize), now: u64) -> Option<u64> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.taken.values() {
            *held.entry(entry.client).or_default() += match scarce {
                Scarce::Count => 1,
                Scarce::Bytes => entry.bytes,
            };
        }
        let waited_for = self.taken.iter().filter_map(|(number, entry)| {
            let held = held.get(&entry.client).copied().unwrap_or_default();
            let spared = if held > half && entry.client != asks { Duration::ZERO } else { SPARED };
            let waited = entry.state.waited_millis(now, spared)?;
            Some((held, waited, *number))
        });
        waited_for.max().map(|(_, _, number)| number)
    }
}

impl State {
    /// For how long the client has been waited for, once that is as long as it is `spared`.
    fn waited_millis(&self, now: u64, spared: Duration) -> Option<u64> {
        let since = self.waits_since.load(Ordering::Relaxed);
        let waited = now.saturating_sub(since);
        (since != 0 && u128::from(waited) >= spared.as_millis()).then_some(waited)
    }

    fn lose(&self) {
        self.lost.notify_one();
    }
}

impl Slot {
    /// Adds so many bytes to the slot, and waits up to a second for room.
    ///
    /// # Errors
    /// [`NoRoom`] after that second.
    pub async fn grow(&self, bytes: usize) -> Result<(), NoRoom> {
        let number = self.number;
        self.slots.when_there_is_room(self.client, (0, bytes), |table| table.grow(number, bytes)).await
    }

    /// The client is waited for.
    pub fn waits(&self) {
        self.state.waits_since.store(self.slots.now(), Ordering::Relaxed);
    }

    /// The server is busy with it.
    pub fn works(&self) {
        self.state.waits_since.store(0, Ordering::Relaxed);
    }

    /// Ends when the slot is lost.
    pub async fn lost(&self) {
        self.state.lost.notified().await;
    }
}

impl Drop for Slot {
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

    async fn take(slots: &Slots, last: u8, bytes: usize) -> Slot {
        slots.take(client(last), bytes, Arc::default()).await.expect("room")
    }

    /// The client of this slot has been waited for so long.
    fn age(slot: &Slot, millis: u64) {
        slot.state.waits_since.store(slot.slots.now().saturating_sub(millis), Ordering::Relaxed);
    }

    fn is_lost(slot: &Slot) -> bool {
        slot.lost().now_or_never().is_some()
    }

    /// Slots that were made a while ago.
    fn old(room: Room) -> Slots {
        let slots = Slots::new(room);
        let mut shared = Arc::into_inner(slots.0).expect("not shared yet");
        shared.began -= Duration::from_secs(100);
        Slots(Arc::new(shared))
    }

    #[tokio::test]
    async fn the_client_that_holds_most_loses_what_it_was_waited_for_longest() {
        let slots = old(ROOM);
        let [one, other, alone] = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 2, 90).await];
        age(&one, 1_000);
        age(&other, 2_000);
        age(&alone, 9_000);
        let _new = take(&slots, 3, 0).await;
        assert!(is_lost(&other) && !is_lost(&one) && !is_lost(&alone));
    }

    #[tokio::test]
    async fn where_bytes_are_scarce_the_largest_holder_loses() {
        let slots = old(ROOM);
        let (small, large) = (take(&slots, 1, 10).await, take(&slots, 2, 80).await);
        age(&small, 9_000);
        age(&large, 300);
        small.grow(20).await.expect("room");
        assert!(is_lost(&large) && !is_lost(&small));
    }

    #[tokio::test]
    async fn who_holds_more_than_half_is_not_spared() {
        let slots = old(ROOM);
        let [first, second, _other] = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 2, 0).await];
        first.works();
        age(&second, 1);
        let begun = Instant::now();
        let _new = take(&slots, 3, 0).await;
        assert!(begun.elapsed() < SPARED && is_lost(&second) && !is_lost(&first));
    }

    #[tokio::test]
    async fn what_the_server_is_busy_with_is_never_lost() {
        let slots = old(ROOM);
        let busy = [take(&slots, 1, 0).await, take(&slots, 1, 0).await, take(&slots, 1, 0).await];
        age(&busy[0], 9_000);
        busy[0].works();
        let begun = Instant::now();
        assert_eq!(slots.take(client(2), 0, Arc::default()).await.err(), Some(NoRoom));
        assert!(begun.elapsed() >= PATIENCE);
    }

    #[tokio::test]
    async fn room_that_is_given_back_goes_to_who_waits() {
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
