//! Places for requests that are worked on. Who waits for one takes turns: first clients with each other, then the connections
//! of each client, so that no number of requests over some connections keeps the requests of others waiting.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::seats::Seat;
use crate::{code::ErrorCode, http::problem::Problem};

/// How long a request waits for its place before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The places of a kind; cheap to clone.
#[derive(Clone, Debug)]
pub struct Places(Arc<Mutex<State>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place(Option<Places>);

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// The client's network.
    pub client: IpAddr,
    /// Its connection, a number of the caller's choice.
    pub connection: usize,
}

impl From {
    /// A client's network, and the place of its connection. That outlives its requests, so its address tells the connection
    /// from all others.
    pub fn new(client: IpAddr, seat: &Arc<Seat>) -> Self {
        Self { client, connection: Arc::as_ptr(seat) as usize }
    }
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Turns<IpAddr, Turns<usize, VecDeque<oneshot::Sender<Place>>>>,
}

/// Queues that take turns, each under its key; those that are empty are forgotten.
#[derive(Debug)]
struct Turns<K, Q> {
    order: VecDeque<K>,
    queues: HashMap<K, Q>,
}

impl Places {
    /// So many places, all of them free.
    pub fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: free.max(1), waiting: Turns::default() })))
    }

    /// Waits for a place for up to a second.
    ///
    /// # Errors
    /// 503 after that second; `work` says which requests have the places.
    pub async fn take_soon(&self, from: From, work: &str) -> Result<Place, Problem> {
        timeout(MAX_WAIT, self.take(from)).await.map_err(|_elapsed| {
            let cause = format!("no place among the requests that {work} within {MAX_WAIT:?}");
            Problem::unavailable(ErrorCode::Unavailable, cause)
        })
    }

    /// Waits for a place.
    async fn take(&self, from: From) -> Place {
        let given = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Place(Some(self.clone()));
            }
            let (give, given) = oneshot::channel();
            let connections = state.waiting.queue(from.client);
            connections.queue(from.connection).push_back(give);
            given
        };
        // A place is given to all who wait, in their turn, or they end.
        match given.await {
            Ok(place) => place,
            Err(_) => std::future::pending().await,
        }
    }

    /// A panic while the state was held leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(places) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = places.state();
                let next = state.waiting.next(|connections| connections.next(VecDeque::pop_front));
                state.free += usize::from(next.is_none());
                next
            };
            let Some(give) = next else { return };
            match give.send(Self(Some(places.clone()))) {
                Ok(()) => return,
                // Who has stopped waiting is passed by.
                Err(mut returned) => returned.0 = None,
            }
        }
    }
}

impl<K: Copy + Eq + Hash, Q: Default> Turns<K, Q> {
    /// The queue under `key`, which is the last to have its turn if it is new.
    fn queue(&mut self, key: K) -> &mut Q {
        self.queues.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Q::default()
        })
    }

    /// What `take` takes from the queue whose turn it is.
    fn next<T>(&mut self, mut take: impl FnMut(&mut Q) -> Option<T>) -> Option<T> {
        while let Some(key) = self.order.pop_front() {
            let taken = self.queues.get_mut(&key).and_then(&mut take);
            if taken.is_some() {
                self.order.push_back(key);
                return taken;
            }
            self.queues.remove(&key);
        }
        None
    }
}

impl<K, Q> Default for Turns<K, Q> {
    fn default() -> Self {
        Self { order: VecDeque::new(), queues: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    fn from(client: u8, connection: usize) -> From {
        From { client: IpAddr::from([192, 0, 2, client]), connection }
    }

    /// Takes a place in the background; says its name when it has it.
    fn wait(places: &Places, from: From, name: &'static str, said: &tokio::sync::mpsc::UnboundedSender<&'static str>) {
        let mut taking = Box::pin({
            let places = places.clone();
            async move { places.take(from).await }
        });
        // Polled here, so that the order of the calls is that of the queue.
        assert!(taking.as_mut().now_or_never().is_none());
        let said = said.clone();
        tokio::spawn(async move {
            let place = taking.await;
            said.send(name).expect("somebody listens");
            drop(place);
        });
    }

    #[tokio::test]
    async fn clients_and_their_connections_take_turns() {
        let places = Places::new(1);
        let first = places.take(from(1, 1)).await;
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for (client, connection, name) in
            [(1, 1, "a1"), (1, 1, "a1 again"), (1, 1, "a1 once more"), (1, 2, "a2"), (2, 3, "b")]
        {
            wait(&places, from(client, connection), name, &said);
        }
        drop(first);
        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(timeout(Duration::from_secs(5), heard.recv()).await.expect("in time").expect("a name"));
        }
        assert_eq!(order, ["a1", "b", "a2", "a1 again", "a1 once more"]);
        assert!(places.state().waiting.queues.is_empty());
        assert_eq!(places.state().free, 1);
    }

    #[tokio::test]
    async fn who_has_stopped_waiting_is_passed_by() {
        let places = Places::new(1);
        let first = places.take(from(1, 1)).await;
        let gone = timeout(Duration::from_millis(10), places.take(from(1, 1))).await;
        assert!(gone.is_err());
        drop(first);
        assert_eq!(places.state().free, 1);
        let _second = places.take(from(1, 1)).await;
    }
}
