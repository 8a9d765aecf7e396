//! Notifies workers of due jobs, through RabbitMQ or the database.
//!
//! The job's row in the database is authoritative. The queue carries only hints that a job may be due, so a message may
//! be lost or duplicated without harm. Claims, leases and retries are not decided here.

mod database;
mod error;
mod message;
mod rabbit;

use std::{fmt, time::Duration};

use tokio::sync::watch;

pub use self::{
    database::{DatabaseQueue, NOTIFY_CHANNEL},
    error::{Error, PublishError},
    rabbit::RabbitQueue,
};
use crate::{
    db::Connection,
    domain::{Backlog, InstallationId, JobId},
};

/// Default prefix of the queue's name in RabbitMQ; its version changes with the message format.
/// The installation's id follows, so installations that share a broker have separate queues.
pub const DEFAULT_QUEUE: &str = "pm.images.v2";

/// Timeout of the readiness check.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// The engine that notifies workers of jobs.
#[derive(Clone, PartialEq, Eq)]
pub enum Engine {
    /// The database: workers query it, woken by commits and at least once per second.
    Database,
    /// RabbitMQ, for many workers.
    RabbitMq {
        /// `amqp://` or `amqps://`, with user, password and virtual host.
        url: String,
        /// Prefix of the queue's name, by default [`DEFAULT_QUEUE`].
        queue: String,
    },
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("Database"),
            // Hides the URL, which contains a password.
            Self::RabbitMq { queue, .. } => f.debug_struct("RabbitMq").field("queue", queue).finish_non_exhaustive(),
        }
    }
}

/// The queue between due jobs and workers; clones share connections, which close with the last clone.
#[derive(Clone)]
pub enum Queue {
    /// Workers query the database.
    Database(DatabaseQueue),
    /// Workers consume from RabbitMQ.
    RabbitMq(RabbitQueue),
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.name()).finish()
    }
}

impl Queue {
    /// Sets up the queue for this installation and connects in the background.
    /// An unavailable broker is no error. If the installation's id changes, the queue of the new id is used from then
    /// on.
    ///
    /// Needs a tokio runtime for its background tasks.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings are invalid.
    pub async fn connect(
        engine: &Engine,
        database: &Connection,
        installation: watch::Receiver<InstallationId>,
    ) -> Result<Self, Error> {
        match engine {
            Engine::Database => Ok(Self::Database(DatabaseQueue::connect(database, database::POLL_INTERVAL))),
            Engine::RabbitMq { url, queue } => Ok(Self::RabbitMq(RabbitQueue::connect(url, queue, installation)?)),
        }
    }

    /// Returns the engine's name in metrics and logs: `database` or `rabbitmq`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::RabbitMq(_) => "rabbitmq",
        }
    }

    /// Wakes this process's relay and, without a broker, its consumers.
    ///
    /// The caller has committed jobs that may be due; the call is cheap.
    pub fn wake(&self) {
        match self {
            Self::Database(queue) => queue.wake(),
            Self::RabbitMq(queue) => queue.wake(),
        }
    }

    /// Waits for [`wake`](Self::wake), at most `longest`.
    /// A wake since the last wait ends it at once. Only one loop per process may wait: each wake reaches one waiter.
    pub async fn woken(&self, longest: Duration) {
        let woken = async {
            match self {
                Self::Database(queue) => queue.woken().await,
                Self::RabbitMq(queue) => queue.woken().await,
            }
        };
        // A timeout is the normal case, not an error.
        let _ = tokio::time::timeout(longest, woken).await;
    }

    /// Returns whether due jobs must be published to reach workers.
    pub fn needs_relay(&self) -> bool {
        matches!(self, Self::RabbitMq(_))
    }

    /// Publishes one message per job and waits for all confirmations.
    /// Does nothing without a broker.
    ///
    /// At most 256 messages are in flight at once. Waits up to 2 s for a connection, and 10 s for each next
    /// confirmation.
    ///
    /// # Errors
    /// [`PublishError`] with the confirmed jobs; the others may or may not be in the queue.
    pub async fn publish(&self, jobs: &[JobId]) -> Result<(), PublishError> {
        match self {
            Self::Database(_) => Ok(()),
            Self::RabbitMq(queue) => queue.publish(jobs).await,
        }
    }

    /// Returns the backlog in the broker; all zero without one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the broker does not answer.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        match self {
            Self::Database(_) => Ok(Backlog::default()),
            Self::RabbitMq(queue) => queue.backlog().await,
        }
    }

    /// Starts a consumer with at most `prefetch` (at least 1) unsettled messages from RabbitMQ.
    ///
    /// Needs a tokio runtime. The consumer has its own connection and reconnects after a failure.
    pub fn consume(&self, prefetch: u16) -> Consumer {
        match self {
            Self::Database(queue) => Consumer(Source::Database(queue.wait())),
            Self::RabbitMq(queue) => Consumer(Source::RabbitMq(queue.consume(prefetch))),
        }
    }

    /// Checks that the queue works with this process's permissions.
    /// Answers within 2 s; the answer may be 3 s old.
    ///
    /// Without a broker the check does nothing, since the database has its own check.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the answer of the broker or the last connection error.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Self::Database(_) => Ok(()),
            Self::RabbitMq(queue) => match tokio::time::timeout(CHECK_LIMIT, queue.check()).await {
                Ok(answer) => answer,
                Err(_) => Err(queue.outage().unwrap_or_else(|| Error::unavailable("no answer within 2 s"))),
            },
        }
    }
}

/// The consumer of one worker; dropping it returns unsettled messages to the queue.
pub struct Consumer(Source);

enum Source {
    Database(database::Waiter),
    RabbitMq(rabbit::Deliveries),
}

impl Consumer {
    /// Waits for the next hint. Cancel-safe: no hint is lost.
    pub async fn next(&mut self) -> Next {
        match &mut self.0 {
            Source::Database(waiter) => {
                waiter.wait().await;
                Next::Due
            }
            Source::RabbitMq(deliveries) => deliveries.next().await,
        }
    }

    /// Stops consuming, returns unsettled messages to the broker and closes the connection.
    /// Takes at most 5 s.
    ///
    /// Settling a delivery after this has no effect: the broker redelivers its message to another worker, which finds
    /// the job already claimed.
    pub async fn close(self) {
        match self.0 {
            Source::Database(_) => {}
            Source::RabbitMq(deliveries) => deliveries.close().await,
        }
    }
}

/// A hint to a worker.
#[derive(Debug)]
pub enum Next {
    /// Jobs may be due: claim from the database until none is.
    Due,
    /// This job may be due.
    Job(Delivery),
}

/// A message that a worker must settle; if dropped unsettled, it returns to the queue.
#[derive(Debug)]
pub struct Delivery {
    /// The job that may be due.
    pub job_id: JobId,
    receipt: rabbit::Receipt,
}

impl Delivery {
    /// Acknowledges the message, which removes it from the queue.
    ///
    /// A failure is ignored: the connection is gone, and the broker redelivers the message.
    pub async fn ack(self) {
        self.receipt.ack().await;
    }

    /// Requeues the message for any worker.
    pub async fn requeue(self) {
        self.receipt.requeue().await;
    }
}
