//! RabbitMQ as the queue: one supervised connection to publish and one per consumer.
//!
//! The client library's own recovery is disabled: after mixed failures its consumers can stop silently. Here any error
//! drops the whole connection, and a new one declares and consumes again.

mod connect;
mod connection;
mod consumer;
mod publisher;
mod supervisor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::uri::AMQPUri;
use tokio::sync::{Notify, watch};

pub(super) use self::consumer::{Deliveries, Receipt};
use self::publisher::Publisher;
use super::{Error, PublishError};
use crate::domain::{Backlog, InstallationId, JobId};

/// Timeout of each protocol step.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// The queue at a broker; clones share the publisher's connection.
#[derive(Clone)]
pub struct RabbitQueue {
    target: Arc<Target>,
    publisher: Publisher,
    relay: Arc<Notify>,
    /// Whether this process consumes from the queue.
    consumes: Arc<AtomicBool>,
}

/// The broker, and the parts of its queues' names.
struct Target {
    uri: AMQPUri,
    prefix: String,
    installation: watch::Receiver<InstallationId>,
}

/// The two queues of an installation.
#[derive(Debug)]
struct Names {
    installation: InstallationId,
    queue: String,
    unreadable: String,
}

/// The role of a connection, part of its name at the broker and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Publisher,
    Worker,
}

impl RabbitQueue {
    /// Connects in the background to the broker at `url`.
    /// The queue's name is `prefix` followed by the installation's id.
    ///
    /// # Errors
    /// [`Error::Config`] if `url` is no AMQP URL or `prefix` cannot start a queue's name.
    pub(super) fn connect(
        url: &str,
        prefix: &str,
        installation: watch::Receiver<InstallationId>,
    ) -> Result<Self, Error> {
        let uri = connect::parse(url)?;
        // The broker allows 255 bytes and reserves names that start with `amq.`; the id and `.unreadable` follow.
        if prefix.is_empty() || prefix.len() > 200 || prefix.starts_with("amq.") {
            return Err(Error::Config("the queue name must have 1 to 200 bytes and not start with `amq.`".into()));
        }
        let target = Arc::new(Target { uri, prefix: prefix.into(), installation });
        let publisher = Publisher::start(Arc::clone(&target));
        Ok(Self { target, publisher, relay: Arc::default(), consumes: Arc::default() })
    }

    pub(super) fn wake(&self) {
        self.relay.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.relay.notified().await;
    }

    pub(super) async fn publish(&self, jobs: &[JobId]) -> Result<(), PublishError> {
        self.publisher.publish(jobs).await
    }

    pub(super) async fn backlog(&self) -> Result<Backlog, Error> {
        self.publisher.backlog().await
    }

    /// Checks that the broker grants the permissions that this process needs.
    pub(super) async fn check(&self) -> Result<(), Error> {
        self.publisher.check(self.consumes.load(Ordering::Relaxed)).await
    }

    /// Returns the last connection error if there is no connection now.
    pub(super) fn outage(&self) -> Option<Error> {
        self.publisher.outage()
    }

    pub(super) fn consume(&self, prefetch: u16) -> Deliveries {
        self.consumes.store(true, Ordering::Relaxed);
        // In AMQP a prefetch of 0 means no limit.
        Deliveries::start(Arc::clone(&self.target), prefetch.max(1))
    }
}

impl Target {
    /// Returns the queues of the current installation.
    fn names(&self) -> Names {
        let installation = self.installation.borrow().clone();
        let queue = self.queue_of(&installation);
        Names { unreadable: format!("{queue}.unreadable"), queue, installation }
    }

    fn queue_of(&self, installation: &InstallationId) -> String {
        format!("{}.{installation}", self.prefix)
    }

    /// Waits until the installation's id differs from `installation`; forever if it cannot change.
    async fn renamed(&self, installation: &InstallationId) {
        let mut current = self.installation.clone();
        if current.wait_for(|current| current != installation).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Role {
    fn connection_name(self) -> &'static str {
        match self {
            Self::Publisher => "pm-publisher",
            Self::Worker => "pm-worker",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Worker => "worker",
        }
    }
}

/// Runs one protocol step with the timeout [`STEP_LIMIT`].
async fn step<T>(what: &'static str, work: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(STEP_LIMIT, work).await {
        Ok(outcome) => outcome.map_err(|source| Error::broker(what, source)),
        Err(_) => Err(Error::unavailable(what)),
    }
}
