//! The database as the queue.
//!
//! Consumers are woken by commits of this process, by PostgreSQL notifications of other processes, and by a timer. This
//! module never reads the jobs.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::db::{
    Connection,
    connection::notifications::{self, Listening},
};

/// PostgreSQL channel for new jobs, notified by the transaction that writes them.
pub const NOTIFY_CHANNEL: &str = "pm_jobs";

/// Maximum wait of a consumer.
/// It limits the delay of due retries, and of jobs that other processes write to SQLite.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The queue without a broker; clones share one listener.
#[derive(Clone)]
pub struct DatabaseQueue(Arc<Shared>);

struct Shared {
    due: watch::Sender<()>,
    relay: Notify,
    poll_interval: Duration,
    _listening: Option<Listening>,
}

/// The wait state of one consumer; keeps the listener alive, like the queue itself.
pub(super) struct Waiter {
    shared: Arc<Shared>,
    due: watch::Receiver<()>,
    /// `None` before the first wait.
    next_poll: Option<Instant>,
}

impl DatabaseQueue {
    /// Starts the queue. Consumers wait at most `poll_interval`.
    /// On PostgreSQL they are also woken by [`NOTIFY_CHANNEL`].
    ///
    /// Listening takes a separate connection, and ends when `database` is closed.
    pub fn connect(database: &Connection, poll_interval: Duration) -> Self {
        let due = watch::Sender::new(());
        let wake = due.clone();
        let listening = notifications::listen(database, NOTIFY_CHANNEL, move || {
            wake.send_replace(());
        });
        Self(Arc::new(Shared { due, relay: Notify::new(), poll_interval, _listening: listening }))
    }

    pub(super) fn wake(&self) {
        self.0.due.send_replace(());
        self.0.relay.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.0.relay.notified().await;
    }

    pub(super) fn wait(&self) -> Waiter {
        Waiter { shared: Arc::clone(&self.0), due: self.0.due.subscribe(), next_poll: None }
    }
}

impl Waiter {
    pub(super) async fn wait(&mut self) {
        // The first wait ends at once: jobs may have been due before the listener started.
        if let Some(next_poll) = self.next_poll {
            tokio::select! {
                // The sender is in `shared`, so this branch ends only on a wake.
                _ = self.due.changed() => {}
                // A point in time, not a duration: a caller that cancels repeatedly must not postpone the poll forever.
                () = tokio::time::sleep_until(next_poll) => {}
            }
        }
        self.due.mark_unchanged();
        self.next_poll = Some(Instant::now() + self.shared.poll_interval);
    }
}
