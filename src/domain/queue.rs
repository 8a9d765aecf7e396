//! How the queue is: what the database knows of the jobs, and what the broker says of its messages.

use std::{error::Error, sync::Arc, time::Duration};

use crate::clock::Timestamp;

/// How the queue is. No figure goes beyond 100,001, which stands for "or more".
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// The engine by which workers learn of jobs: `database` or `rabbitmq`.
    pub engine: &'static str,
    /// The jobs that wait, run, or failed for good.
    pub depth: Depth,
    /// The age of the job that has been due longest.
    pub oldest_age: Option<Duration>,
    /// Jobs that were done in the last minute.
    pub done_last_minute: u64,
    /// What the broker says of its queue, or why it says nothing; `None` without a broker.
    pub broker: Option<Result<Backlog, Arc<dyn Error + Send + Sync>>>,
}

/// How full the queue of record is. No state is counted beyond 100,001: that many stands for "or more".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that a worker has.
    pub running: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// When the waiting job that has been due longest was first queued.
    pub oldest: Option<Timestamp>,
}

/// What the broker says of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that no worker has yet.
    pub ready: u64,
    /// Consumers at the queue, of all processes.
    pub consumers: u64,
}
