//! Queues of requests by client: of each client's requests, only the first may look for a permit.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

type Queue = tokio::sync::Mutex<()>;

/// The queues of all clients; empty ones are removed.
#[derive(Debug, Default)]
pub struct ClientQueues(Mutex<HashMap<IpAddr, Arc<Queue>>>);

/// A request's place in its client's queue.
pub struct Place<'a> {
    queues: &'a ClientQueues,
    client: IpAddr,
    /// `None` only while the place is dropped.
    queue: Option<Arc<Queue>>,
}

impl ClientQueues {
    /// Adds a request to the client's queue; it leaves the queue when the place is dropped.
    pub fn place(&self, client: IpAddr) -> Place<'_> {
        let queue = Arc::clone(self.0.lock().entry(client).or_default());
        Place { queues: self, client, queue: Some(queue) }
    }

    /// Whether no request waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Place<'_> {
    /// Waits until this request is the first, which it is until the returned guard is dropped.
    pub async fn first(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        Some(self.queue.as_ref()?.lock().await)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.queues.0.lock();
        self.queue = None;
        if queues.get(&self.client).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_first_request_of_a_client_looks_and_empty_queues_are_removed() {
        let queues = ClientQueues::default();
        let (client, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let (one, two, three) = (queues.place(client), queues.place(client), queues.place(other));
        let first = one.first().now_or_never().expect("at once");
        assert!(two.first().now_or_never().is_none());
        assert!(three.first().now_or_never().is_some(), "another client has its own queue");
        drop(first);
        assert!(two.first().now_or_never().is_some());
        drop((one, two));
        assert!(!queues.is_empty());
        drop(three);
        assert!(queues.is_empty());
    }
}
