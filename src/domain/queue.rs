//! State of the queue, in the database and in the broker.

use std::{error::Error, sync::Arc, time::Duration};

use crate::clock::Timestamp;

/// State of the queue. No count exceeds 100,001, which means "or more".
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// The engine that notifies workers of jobs: `database` or `rabbitmq`.
    pub engine: &'static str,
    /// Jobs that are queued, running or dead.
    pub depth: Depth,
    /// The age of the job that has been due longest.
    pub oldest_age: Option<Duration>,
    /// Jobs that finished in the last minute.
    pub done_last_minute: u64,
    /// The broker's queue, or the error of the query; `None` without a broker.
    pub broker: Option<Result<Backlog, Arc<dyn Error + Send + Sync>>>,
}

/// Jobs per state, counted up to 100,001, which means "or more".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Queued jobs.
    pub queued: u64,
    /// Running jobs.
    pub running: u64,
    /// Dead jobs.
    pub dead: u64,
    /// The time at which the longest due job was first queued.
    pub oldest: Option<Timestamp>,
}

/// The broker's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that are not delivered to a worker.
    pub ready: u64,
    /// Consumers of the queue in all processes.
    pub consumers: u64,
}
