//! A request's turn: room for its body while that is read, then a place among the requests that are worked on. A request has
//! neither before its maker was let in, and gives both back when it is answered.

use std::{
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use http::{HeaderValue, StatusCode, header};

use super::{
    places::{self, Place, Places},
    seats::Seat,
    slots::{Room, Slot, Slots},
};
use crate::{
    code::ErrorCode,
    http::{
        headers::forwarded::{Client, network_of},
        problem::Problem,
    },
};

/// So many uploads are read at a time.
const MAX_UPLOADS: usize = 64;
/// So many requests ask the database at a time. All others wait in their turn, not for a connection or a core, which know
/// nothing of clients.
const MAX_ASKING: usize = 12;
/// So many requests for each core work on many things at a time. Each keeps a core busy for milliseconds, and a request
/// with a few statements waits for it at each of them.
const MANY_PER_CORE: usize = 2;

/// What all requests share.
#[derive(Debug)]
pub struct Turns {
    data: Places,
    many: Places,
    files: Places,
    bodies: Slots,
    uploads: Slots,
}

/// What a request mostly works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A few rows of the database.
    Data,
    /// Many rows: lists and batches.
    ManyRows,
    /// Stored files.
    Files,
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
    needs: Needs,
    body: OnceLock<Slot>,
    place: OnceLock<Place>,
}

impl Turns {
    /// Places for `most` requests for files and at most as many others, and room for `most` bodies, of `body_bytes` in all.
    pub fn new(most: usize, body_bytes: usize) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Arc::new(Self {
            data: Places::new(most.min(MAX_ASKING)),
            many: Places::new(most.min((cores * MANY_PER_CORE).max(4))),
            files: Places::new(most),
            bodies: Slots::new(Room { count: most, bytes: body_bytes }),
            uploads: Slots::new(Room { count: MAX_UPLOADS, bytes: usize::MAX }),
        })
    }

    /// The turn of a request of `client` over the connection with this seat.
    pub fn turn(self: &Arc<Self>, client: Client, seat: Arc<Seat>, needs: Needs) -> Arc<Turn> {
        let (client, body, place) = (network_of(client.address), OnceLock::new(), OnceLock::new());
        Arc::new(Turn { turns: Arc::clone(self), client, seat, needs, body, place })
    }
}

impl Turn {
    /// A turn at a server that has nothing else to do.
    #[cfg(test)]
    pub fn for_tests() -> Arc<Self> {
        let client = Client { address: [127, 0, 0, 1].into(), secure: false };
        Turns::new(1, usize::MAX).turn(client, Seat::for_tests(), Needs::Data)
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
        let places = match self.needs {
            Needs::Data => &self.turns.data,
            Needs::ManyRows => &self.turns.many,
            Needs::Files => &self.turns.files,
        };
        let place = places.take_soon(places::From::new(self.client, &self.seat), "are worked on").await?;
        // A request asks one thing at a time, so it has no place yet.
        let _ = self.place.set(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(address: &str) -> Client {
        Client { address: address.parse().expect("an address"), secure: false }
    }

    fn turn(turns: &Arc<Turns>, address: &str) -> Arc<Turn> {
        turns.turn(client(address), Seat::for_tests(), Needs::Data)
    }

    #[tokio::test]
    async fn a_place_is_waited_for_no_longer_than_a_second() {
        let turns = Turns::new(1, 1_000);
        let busy = turn(&turns, "127.0.0.1");
        busy.works().await.expect("a place");
        let waiting = turn(&turns, "127.0.0.1");
        assert_eq!(waiting.works().await.expect_err("refused").head().status(), 503);
        let next = tokio::spawn(async move { waiting.works().await.is_ok() });
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(busy);
        assert!(next.await.expect("no panic"));
    }

    #[tokio::test]
    async fn bodies_that_are_in_memory_take_room_until_their_requests_are_answered() {
        let turns = Turns::new(8, 100);
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
