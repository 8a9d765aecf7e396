//! How a worker learns of the next job: through RabbitMQ, or by asking the database.
//!
//! The truth about a job is its row in the database. What goes through here is only a hint that it may be due, so a
//! message may be lost or come twice without harm. Claims, leases and retries are never decided here.

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

/// What the queue's name in RabbitMQ begins with unless another text is set; its version changes with the form of the
/// messages. The installation's id follows, so installations that share a broker have queues of their own.
pub const DEFAULT_QUEUE: &str = "pm.images.v2";

/// Readiness is answered within this time, one way or the other.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Which engine tells workers of jobs.
#[derive(Clone, PartialEq, Eq)]
pub enum Engine {
    /// The database itself: workers ask it, woken by commits and at the latest each second.
    Database,
    /// RabbitMQ, as the place where many workers wait.
    RabbitMq {
        /// `amqp://` or `amqps://`, with user, password and virtual host.
        url: String,
        /// What the queue's name begins with, [`DEFAULT_QUEUE`] by default.
        queue: String,
    },
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("Database"),
            // The address has a password in it.
            Self::RabbitMq { queue, .. } => f.debug_struct("RabbitMq").field("queue", queue).finish_non_exhaustive(),
        }
    }
}

/// The way from a due job to a worker; clones share their connections, which end with the last of them.
#[derive(Clone)]
pub enum Queue {
    /// Workers ask the database.
    Database(DatabaseQueue),
    /// Workers wait at RabbitMQ.
    RabbitMq(RabbitQueue),
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.name()).finish()
    }
}

impl Queue {
    /// Sets the engine up for the installation with this id and connects in the background: a broker that is away is no
    /// error. Where the id changes, the queue of the new id is used from then on.
    ///
    /// Needs a tokio runtime, on which the connections are kept alive.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings can never work.
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

    /// The engine's name in figures and logs: `database` or `rabbitmq`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::RabbitMq(_) => "rabbitmq",
        }
    }

    /// Says that jobs may have become due: wakes this process's relay and, without a broker, its consumers.
    ///
    /// Called after a commit; costs next to nothing.
    pub fn wake(&self) {
        match self {
            Self::Database(queue) => queue.wake(),
            Self::RabbitMq(queue) => queue.wake(),
        }
    }

    /// Waits for [`wake`](Self::wake), or for `longest`; a wake since the last wait ends it at once.
    ///
    /// Meant for one loop a process: of several waiters each wake reaches one.
    pub async fn woken(&self, longest: Duration) {
        let woken = async {
            match self {
                Self::Database(queue) => queue.woken().await,
                Self::RabbitMq(queue) => queue.woken().await,
            }
        };
        // Running into the limit is the ordinary case, not a failure.
        let _ = tokio::time::timeout(longest, woken).await;
    }

    /// Whether due jobs must be published for workers to learn of them.
    pub fn needs_relay(&self) -> bool {
        matches!(self, Self::RabbitMq(_))
    }

    /// Publishes one message a job and waits until the broker has stored them all; does nothing without a broker.
    ///
    /// At most 256 messages are under way at once. Waits up to 2 s for a connection, and 10 s for the next
    /// confirmation.
    ///
    /// # Errors
    /// [`PublishError`] with the jobs that are confirmed; the others may or may not be in the queue.
    pub async fn publish(&self, jobs: &[JobId]) -> Result<(), PublishError> {
        match self {
            Self::Database(_) => Ok(()),
            Self::RabbitMq(queue) => queue.publish(jobs).await,
        }
    }

    /// How much waits in the broker; all zero without one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the broker does not say.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        match self {
            Self::Database(_) => Ok(Backlog::default()),
            Self::RabbitMq(queue) => queue.backlog().await,
        }
    }

    /// Starts consuming; RabbitMQ gives it at most `prefetch` (at least 1) messages that are not settled.
    ///
    /// Needs a tokio runtime. The consumer has a connection of its own, which comes back by itself.
    pub fn consume(&self, prefetch: u16) -> Consumer {
        match self {
            Self::Database(queue) => Consumer(Source::Database(queue.wait())),
            Self::RabbitMq(queue) => Consumer(Source::RabbitMq(queue.consume(prefetch))),
        }
    }

    /// Whether the queue can be used now, with the permissions that this process needs; answers within 2 s, and what it
    /// answers may be 3 s old.
    ///
    /// Without a broker there is nothing to ask that the database's own check does not ask.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what the broker, or the last try to reach it, said.
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

/// Where one worker waits for jobs; dropping it gives back what was not settled.
pub struct Consumer(Source);

enum Source {
    Database(database::Waiter),
    RabbitMq(rabbit::Deliveries),
}

impl Consumer {
    /// Waits for the next hint. Cancel-safe: a hint is returned or stays.
    pub async fn next(&mut self) -> Next {
        match &mut self.0 {
            Source::Database(waiter) => {
                waiter.wait().await;
                Next::Due
            }
            Source::RabbitMq(deliveries) => deliveries.next().await,
        }
    }

    /// Stops consuming, gives everything that was not settled back to the broker and closes the connection; takes
    /// at most 5 s.
    ///
    /// Settling a delivery after this does nothing: its message goes to another worker, who finds the job taken.
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
    /// Something may be due: claim from the database until nothing is.
    Due,
    /// This job may be due.
    Job(Delivery),
}

/// A message that a worker holds until it settles it; dropped unsettled, it goes back to the queue.
#[derive(Debug)]
pub struct Delivery {
    /// The job that may be due.
    pub job_id: JobId,
    receipt: rabbit::Receipt,
}

impl Delivery {
    /// Takes the message out of the queue.
    ///
    /// Failing to is no error: the connection is gone, and the broker gives the message out again.
    pub async fn ack(self) {
        self.receipt.ack().await;
    }

    /// Puts the message back for any worker to take.
    pub async fn requeue(self) {
        self.receipt.requeue().await;
    }
}
