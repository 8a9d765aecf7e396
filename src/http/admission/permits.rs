//! Permits for requests in progress, with a fair queue.
//!
//! Waiting clients get permits in round-robin order, and so do the connections of each client. A client or connection
//! with many requests therefore does not delay the others.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::connection_slots::ConnectionSlot;
use crate::{code::ErrorCode, http::problem::Problem};

/// Maximum wait for a permit before the request is refused.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A pool of permits; cheap to clone.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Mutex<State>>);

/// A permit; released on drop.
#[derive(Debug)]
pub struct Permit(Option<Permits>);

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
    waiting: AdmissionControl<IpAddr, AdmissionControl<usize, VecDeque<oneshot::Sender<Permit>>>>,
}

/// Queues by key, served in round-robin order; empty queues are removed.
#[derive(Debug)]
struct AdmissionControl<K, Q> {
    order: VecDeque<K>,
    queues: HashMap<K, Q>,
}

impl Permits {
    /// Creates a pool of `free` permits, at least one.
    pub fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: free.max(1), waiting: AdmissionControl::default() })))
    }

    /// Waits up to a second for a permit.
    ///
    /// # Errors
    /// 503 after that second; the logged cause contains `work`, which describes the requests with permits.
    pub async fn take_soon(&self, from: From, work: &str) -> Result<Permit, Problem> {
        timeout(MAX_WAIT, self.take(from)).await.map_err(|_elapsed| {
            let cause = format!("no permit for requests that {work} within {MAX_WAIT:?}");
            Problem::unavailable(ErrorCode::Unavailable, cause)
        })
    }

    /// Waits for a permit.
    async fn take(&self, from: From) -> Permit {
        let given = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Permit(Some(self.clone()));
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

    /// Locks the state. A panic cannot leave it inconsistent, so poisoning is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
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
                // The receiver stopped waiting; try the next one.
                Err(mut returned) => returned.0 = None,
            }
        }
    }
}

impl<K: Copy + Eq + Hash, Q: Default> AdmissionControl<K, Q> {
    /// Returns the queue of `key`; a new queue is last in the round.
    fn queue(&mut self, key: K) -> &mut Q {
        self.queues.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Q::default()
        })
    }

    /// Takes an element from the next queue in the round.
    fn next<T>(&mut self, mut take: impl FnMut(&mut Q) -> Option<T>) -> Option<T> {
        while let Some(key) = self.order.pop_front() {
            let permit = self.queues.get_mut(&key).and_then(&mut take);
            if permit.is_some() {
                self.order.push_back(key);
                return permit;
            }
            self.queues.remove(&key);
        }
        None
    }
}

impl<K, Q> Default for AdmissionControl<K, Q> {
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
        let places = Permits::new(1);
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
    async fn a_request_that_stopped_waiting_takes_no_permit() {
        let places = Permits::new(1);
        let first = places.take(from(1, 1)).await;
        let gone = timeout(Duration::from_millis(10), places.take(from(1, 1))).await;
        assert!(gone.is_err());
        drop(first);
        assert_eq!(places.state().free, 1);
        let _second = places.take(from(1, 1)).await;
    }
}
