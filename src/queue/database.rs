//! The database as the queue: consumers are woken by commits of this process, by PostgreSQL's notifications from
//! others, and by the clock. It never looks at the jobs themselves.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::db::{
    Connection,
    connection::notifications::{self, Listening},
};

/// The channel on which PostgreSQL tells other processes of new jobs; the writing transaction notifies it.
pub const NOTIFY_CHANNEL: &str = "pm_jobs";

/// The longest that a consumer waits: for what other processes write to SQLite, and for retries whose time has come.
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

/// One consumer's place to wait; keeps the listener alive as the queue itself does.
pub(super) struct Waiter {
    shared: Arc<Shared>,
    due: watch::Receiver<()>,
    /// None before the first wait.
    next_poll: Option<Instant>,
}

impl DatabaseQueue {
    /// Consumers wait at most `poll_interval`; on PostgreSQL they are also woken by [`NOTIFY_CHANNEL`].
    ///
    /// Listening takes one connection of its own beside those of `database`, and ends when `database` is closed.
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
        // The first wait ends at once: jobs may have been due before anybody listened.
        if let Some(next_poll) = self.next_poll {
            tokio::select! {
                // The sender is in `shared`, so this ends with a wake only.
                _ = self.due.changed() => {}
                // A moment, not a span: a caller that keeps cancelling must not put the poll off for ever.
                () = tokio::time::sleep_until(next_poll) => {}
            }
        }
        self.due.mark_unchanged();
        self.next_poll = Some(Instant::now() + self.shared.poll_interval);
    }
}
