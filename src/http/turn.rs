//! A request's turn: room for its body while that is read, then a place among the requests that are worked on. A request has
//! neither before its maker was let in, and gives both back when it is answered.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    forwarded::{Client, Proxies, network_of},
    problem::Problem,
    seats::Seat,
    slots::{Room, Slot, Slots},
};
use crate::code::ErrorCode;

/// How long a request waits for its place before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many uploads are read at a time.
const MAX_UPLOADS: usize = 64;

/// What all requests share.
#[derive(Debug)]
pub struct Turns {
    work: Arc<Semaphore>,
    most: usize,
    most_per_client: usize,
    /// Clients that have requests worked on, or waiting for that.
    shares: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    /// Who brings many clients along, and so has no share of its own.
    proxies: Proxies,
    bodies: Slots,
    uploads: Slots,
}

/// What becomes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is gathered in memory.
    Gathered,
    /// It is written to disk or to the store while it comes.
    Upload,
}

/// One request's turn.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    client: IpAddr,
    seat: Arc<Seat>,
    body: OnceLock<Slot>,
    place: OnceLock<Place>,
}

/// A place among the requests that are worked on.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// One of the places that a client may have.
#[derive(Debug)]
struct Share {
    turns: Arc<Turns>,
    client: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Places for `most` requests, of which one client has at most half, and room for as many bodies, of `body_bytes` in all.
    pub fn new(most: usize, body_bytes: usize, proxies: Proxies) -> Arc<Self> {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            work: Arc::new(Semaphore::new(most)),
            most,
            most_per_client: most.div_ceil(2),
            shares: Mutex::default(),
            proxies,
            bodies: Slots::new(Room { count: most, bytes: body_bytes }),
            uploads: Slots::new(Room { count: MAX_UPLOADS, bytes: usize::MAX }),
        })
    }

    /// The turn of a request of `client` over the connection with this seat.
    pub fn turn(self: &Arc<Self>, client: Client, seat: Arc<Seat>) -> Arc<Turn> {
        let client = network_of(client.address);
        Arc::new(Turn { turns: Arc::clone(self), client, seat, body: OnceLock::new(), place: OnceLock::new() })
    }

    async fn place(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let share = match client.is_loopback() || self.proxies.contain(client) {
            true => None,
            false => Some(self.share(client).await?),
        };
        let permit = Arc::clone(&self.work).acquire_owned().await.ok()?;
        Some(Place { _permit: permit, _share: share })
    }

    async fn share(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let free =
            Arc::clone(self.shares().entry(client).or_insert_with(|| Arc::new(Semaphore::new(self.most_per_client))));
        // From here on the client is forgotten when the last of its shares is dropped.
        let mut share = Share { turns: Arc::clone(self), client, permit: None };
        share.permit = Some(free.acquire_owned().await.ok()?);
        Some(share)
    }

    /// A panic while the table was held leaves nothing half done in it.
    fn shares(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Semaphore>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.permit = None;
        let mut shares = self.turns.shares();
        // Nobody else can take it up meanwhile: that takes the table, too.
        if shares.get(&self.client).is_some_and(|free| Arc::strong_count(free) == 1) {
            shares.remove(&self.client);
        }
    }
}

impl Turn {
    /// A turn at a server that has nothing else to do.
    #[cfg(test)]
    pub fn for_tests() -> Arc<Self> {
        let client = Client { address: [127, 0, 0, 1].into(), secure: false };
        Turns::new(1, usize::MAX, Proxies::default()).turn(client, Seat::for_tests())
    }

    /// The network that the request comes from.
    pub const fn client(&self) -> IpAddr {
        self.client
    }

    /// A body is going to be read.
    ///
    /// # Errors
    /// 503 if there is no room for one more.
    pub async fn begins_body(&self, kind: Kind) -> Result<(), Problem> {
        let slots = match kind {
            Kind::Gathered => &self.turns.bodies,
            Kind::Upload => &self.turns.uploads,
        };
        let slot = slots.take(self.client, 0, Arc::default()).await?;
        // A request has one body.
        let _ = self.body.set(slot);
        Ok(())
    }

    /// The server waits for the next bytes of the body.
    pub fn waits_for_body(&self) {
        self.seat.waits_for_body();
        if let Some(slot) = self.body.get() {
            slot.waits();
        }
    }

    /// So many bytes of the body have come, which stay in memory until the request is answered.
    ///
    /// # Errors
    /// 503 if there is no room for them.
    pub async fn received(&self, bytes: usize) -> Result<(), Problem> {
        self.goes_on();
        match self.body.get() {
            Some(slot) => Ok(slot.grow(bytes).await?),
            None => Ok(()),
        }
    }

    /// The client waits for the server.
    pub fn goes_on(&self) {
        self.seat.works();
        if let Some(slot) = self.body.get() {
            slot.works();
        }
    }

    /// Ends when others need the room more than this body, for which the server has waited longest.
    pub async fn loses_body(&self) -> Problem {
        match self.body.get() {
            Some(slot) => slot.lost().await,
            None => std::future::pending().await,
        }
        let detail = "the body came too slowly while others waited for their turn";
        Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::DeadlineExceeded, detail)
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Waits up to a second for the request's place among those that are worked on.
    ///
    /// # Errors
    /// 503 after that second.
    pub async fn works(&self) -> Result<(), Problem> {
        self.goes_on();
        if self.place.get().is_some() {
            return Ok(());
        }
        match timeout(PATIENCE, self.turns.place(self.client)).await {
            Ok(Some(place)) => {
                // A request asks one thing at a time, so it has no place yet.
                let _ = self.place.set(place);
                Ok(())
            }
            _ => {
                let cause = format!("no place among the {} requests at a time within {PATIENCE:?}", self.turns.most);
                Err(Problem::unavailable(ErrorCode::Unavailable, cause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client { address: address.parse().expect("an address"), secure: false }
    }

    fn turn(turns: &Arc<Turns>, address: &str) -> Arc<Turn> {
        turns.turn(client(address), Seat::for_tests())
    }

    #[tokio::test]
    async fn a_client_has_half_of_the_places_and_waits_a_second_for_more() {
        let turns = Turns::new(4, 1_000, Proxies::default());
        let [first, second, third] = ["192.0.2.1"; 3].map(|address| turn(&turns, address));
        first.works().await.expect("a place");
        second.works().await.expect("a place");
        assert_eq!(third.works().await.expect_err("refused").head().status(), 503);
        turn(&turns, "192.0.2.2").works().await.expect("another client's place");
        drop(first);
        third.works().await.expect("the place that was given back");
        drop((second, third));
        assert!(turns.shares().is_empty());
    }

    #[tokio::test]
    async fn a_place_is_waited_for() {
        let turns = Turns::new(1, 1_000, Proxies::default());
        let busy = turn(&turns, "127.0.0.1");
        busy.works().await.expect("a place");
        let waiting = turn(&turns, "127.0.0.1");
        let next = tokio::spawn(async move { waiting.works().await.is_ok() });
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(busy);
        assert!(next.await.expect("no panic"));
    }

    #[tokio::test]
    async fn bodies_that_are_in_memory_take_room_until_their_requests_are_answered() {
        let turns = Turns::new(8, 100, Proxies::default());
        let first = turn(&turns, "192.0.2.1");
        first.begins_body(Kind::Gathered).await.expect("room");
        first.received(80).await.expect("room");
        first.works().await.expect("a place");
        let second = turn(&turns, "192.0.2.2");
        second.begins_body(Kind::Gathered).await.expect("room");
        assert_eq!(second.received(80).await.expect_err("refused").head().status(), 503);
        drop(first);
        second.received(80).await.expect("room");
    }
}
