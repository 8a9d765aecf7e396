//! Permits for requests in progress, with a fair queue.
//!
//! A free permit goes to a waiting client that holds none, and only then to one that holds some; the last free permit
//! is kept for a client that holds none. Among equals, clients get permits in round-robin order, and so do the
//! connections of each client. A client or connection with many requests, or with slow ones, therefore does not stop
//! the others.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::oneshot, time::timeout};

use super::connection_slots::ConnectionSlot;
use crate::http::problem::Problem;

/// A pool of permits; cheap to clone.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Maximum wait for a permit before the request is refused.
    max_wait: Duration,
    state: Mutex<State>,
}

/// A permit; released on drop.
#[derive(Debug)]
pub struct Permit {
    /// `None` if the permit was never given to a request.
    pool: Option<Permits>,
    client: IpAddr,
}

/// The origin of a request.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// The client's network.
    pub client: IpAddr,
    /// A number that identifies the connection.
    pub connection: usize,
}

impl From {
    /// Creates the origin of a request. The slot outlives the request, so its memory address identifies the connection.
    pub fn new(client: IpAddr, connection_slot: &Arc<ConnectionSlot>) -> Self {
        Self { client, connection: Arc::as_ptr(connection_slot) as usize }
    }
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Whether there is more than one permit, so that one can be kept free.
    keeps_one: bool,
    /// Number of permits by client; at least one each.
    held: HashMap<IpAddr, usize>,
    waiting: FairQueue<IpAddr, FairQueue<usize, VecDeque<oneshot::Sender<Permit>>>>,
}

/// Queues by key, served in round-robin order; empty queues are removed.
#[derive(Debug)]
struct FairQueue<K, Q> {
    order: VecDeque<K>,
    queues: HashMap<K, Q>,
}

impl Permits {
    /// Creates a pool of `count` permits, at least one, for each of which a request waits up to `max_wait`.
    pub fn new(count: usize, max_wait: Duration) -> Self {
        let free = count.max(1);
        let state = State { free, keeps_one: free > 1, held: HashMap::new(), waiting: FairQueue::default() };
        Self(Arc::new(Shared { max_wait, state: Mutex::new(state) }))
    }

    /// Waits for a permit, up to the pool's limit.
    ///
    /// # Errors
    /// 503 after that time; the logged cause contains `work`, which describes the requests with permits.
    pub async fn take_soon(&self, from: From, work: &str) -> Result<Permit, Problem> {
        let max_wait = self.0.max_wait;
        timeout(max_wait, self.take(from)).await.map_err(|_elapsed| {
            let cause = format!("no permit for requests that {work} within {max_wait:?}");
            Problem::overloaded(cause)
        })
    }

    /// Waits for a permit.
    async fn take(&self, from: From) -> Permit {
        let given = {
            let mut state = self.state();
            if state.may_take(from.client) {
                return state.give(self, from.client);
            }
            let (give, given) = oneshot::channel();
            let connections = state.waiting.queue(from.client);
            connections.queue(from.connection).push_back(give);
            given
        };
        // The sender stays in the queue until it sends a permit, so an error does not occur.
        match given.await {
            Ok(place) => place,
            Err(_) => std::future::pending().await,
        }
    }

    /// Locks the state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

impl State {
    /// Whether a permit is free for this client.
    fn may_take(&self, client: IpAddr) -> bool {
        let kept = usize::from(self.keeps_one && self.held.contains_key(&client));
        self.free > kept
    }

    fn give(&mut self, pool: &Permits, client: IpAddr) -> Permit {
        self.free -= 1;
        *self.held.entry(client).or_default() += 1;
        Permit { pool: Some(pool.clone()), client }
    }

    fn take_back(&mut self, client: IpAddr) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }

    /// Returns the next waiting request that may take a permit.
    fn next(&mut self) -> Option<(IpAddr, oneshot::Sender<Permit>)> {
        let Self { waiting, held, .. } = self;
        let take = |connections: &mut FairQueue<_, VecDeque<_>>| connections.next(|_| true, VecDeque::pop_front);
        if let Some((client, (_, give))) = waiting.next(|client| !held.contains_key(client), take) {
            return Some((client, give));
        }
        let spare = self.free > usize::from(self.keeps_one);
        let (client, (_, give)) = if spare { self.waiting.next(|_| true, take) } else { None }?;
        Some((client, give))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        pool.state().take_back(self.client);
        loop {
            let (client, give, permit) = {
                let mut state = pool.state();
                if state.free == 0 {
                    return;
                }
                let Some((client, give)) = state.next() else { return };
                let permit = state.give(&pool, client);
                (client, give, permit)
            };
            if let Err(mut returned) = give.send(permit) {
                // The receiver stopped waiting; try the next one.
                returned.pool = None;
                pool.state().take_back(client);
            }
        }
    }
}

impl<K: Copy + Eq + Hash, Q: Default> FairQueue<K, Q> {
    /// Returns the queue of `key`; a new queue is last in the round.
    fn queue(&mut self, key: K) -> &mut Q {
        self.queues.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Q::default()
        })
    }

    /// Takes an element from the next queue in the round whose key is `eligible`.
    fn next<T>(&mut self, eligible: impl Fn(&K) -> bool, take: impl Fn(&mut Q) -> Option<T>) -> Option<(K, T)> {
        let mut index = 0;
        while let Some(&key) = self.order.get(index) {
            if !eligible(&key) {
                index += 1;
                continue;
            }
            self.order.remove(index);
            if let Some(element) = self.queues.get_mut(&key).and_then(&take) {
                self.order.push_back(key);
                return Some((key, element));
            }
            self.queues.remove(&key);
        }
        None
    }
}

impl<K, Q> Default for FairQueue<K, Q> {
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

    const MAX_WAIT: Duration = Duration::from_secs(1);

    fn from(client: u8, connection: usize) -> From {
        From { client: IpAddr::from([192, 0, 2, client]), connection }
    }

    /// Takes a permit in the background; sends `name` when it has it.
    fn wait(places: &Permits, from: From, name: &'static str, said: &tokio::sync::mpsc::UnboundedSender<&'static str>) {
        let mut taking = Box::pin({
            let places = places.clone();
            async move { places.take(from).await }
        });
        // Polled here, so that the queue has the order of the calls.
        assert!(taking.as_mut().now_or_never().is_none());
        let said = said.clone();
        tokio::spawn(async move {
            let place = taking.await;
            said.send(name).expect("the receiver is open");
            drop(place);
        });
    }

    #[tokio::test]
    async fn clients_and_their_connections_get_permits_in_round_robin_order() {
        let places = Permits::new(1, MAX_WAIT);
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
        assert!(places.state().waiting.queues.is_empty() && places.state().held.is_empty());
        assert_eq!(places.state().free, 1);
    }

    #[tokio::test]
    async fn a_request_that_stopped_waiting_takes_no_permit() {
        let places = Permits::new(1, MAX_WAIT);
        let first = places.take(from(1, 1)).await;
        let gone = timeout(Duration::from_millis(10), places.take(from(1, 1))).await;
        assert!(gone.is_err());
        drop(first);
        assert_eq!(places.state().free, 1);
        let _second = places.take(from(1, 1)).await;
    }

    #[tokio::test]
    async fn the_last_permit_is_kept_for_a_client_that_holds_none() {
        let places = Permits::new(3, MAX_WAIT);
        let taken = [places.take(from(1, 1)).await, places.take(from(1, 1)).await];
        assert!(places.take(from(1, 2)).now_or_never().is_none());
        let other = places.take(from(2, 3)).now_or_never().expect("at once");
        assert!(places.take(from(2, 3)).now_or_never().is_none());
        drop((taken, other));
        assert_eq!(places.state().free, 3);
    }

    #[tokio::test]
    async fn a_released_permit_goes_first_to_a_client_that_holds_none() {
        let places = Permits::new(3, MAX_WAIT);
        let taken = [places.take(from(1, 1)).await, places.take(from(1, 1)).await, places.take(from(2, 1)).await];
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for (client, name) in [(1, "a"), (2, "b"), (3, "c")] {
            wait(&places, from(client, 1), name, &said);
        }
        let [first, ..] = taken;
        drop(first);
        assert_eq!(timeout(Duration::from_secs(5), heard.recv()).await.expect("in time"), Some("c"));
    }
}
