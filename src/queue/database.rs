//! The database as the queue: consumers are woken by commits of this process, by PostgreSQL's notifications from
//! others, and by the clock. It never looks at the jobs themselves.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    DatabaseConnection, DbBackend,
    sqlx::{
        self, PgPool,
        postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    },
};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::Instant,
};
use tracing::{debug, info, warn};

use crate::retry;

/// The channel on which PostgreSQL tells other processes of new jobs; the writing transaction notifies it.
pub const NOTIFY_CHANNEL: &str = "pm_jobs";

/// The longest that a consumer waits: for what other processes write to SQLite, and for retries whose time has come.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Between two tries to listen again.
const RECONNECT: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
    jitter: 0.2,
};

/// The queue without a broker; clones share one listener.
#[derive(Clone)]
pub struct DatabaseQueue(Arc<Shared>);

struct Shared {
    due: watch::Sender<()>,
    relay: Notify,
    poll_interval: Duration,
    listener: Option<AbortHandle>,
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
    pub fn connect(database: &DatabaseConnection, poll_interval: Duration) -> Self {
        let due = watch::Sender::new(());
        let listener = (database.get_database_backend() == DbBackend::Postgres).then(|| {
            let pool = database.get_postgres_connection_pool();
            let (mut closed, listening) = (pool.close_event(), listen(pool.connect_options(), due.clone()));
            tokio::spawn(async move { closed.do_until(listening).await }).abort_handle()
        });
        Self(Arc::new(Shared { due, relay: Notify::new(), poll_interval, listener }))
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

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// Turns notifications into wakes for ever, on a connection of its own.
async fn listen(options: Arc<PgConnectOptions>, due: watch::Sender<()>) {
    // One connection, so that listening never takes one from those who write.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options.as_ref().clone());
    let mut failures = 0_u32;
    loop {
        let Err(error) = forward(&pool, &due, &mut failures).await;
        failures = failures.saturating_add(1);
        if failures == 1 {
            warn!(error = %error, "lost the database's notifications; workers ask it each second instead");
        } else {
            debug!(error = %error, "the database's notifications are still away");
        }
        let pause = RECONNECT.delay(failures, None, fastrand::f64()).unwrap_or(RECONNECT.longest);
        tokio::time::sleep(pause).await;
    }
}

/// Listens until the connection fails.
async fn forward(
    pool: &PgPool,
    due: &watch::Sender<()>,
    failures: &mut u32,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(NOTIFY_CHANNEL).await?;
    if std::mem::take(failures) > 0 {
        info!("the database's notifications are back");
    }
    // What was notified while nobody listened is not repeated.
    due.send_replace(());
    loop {
        if listener.try_recv().await?.is_none() {
            return Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()));
        }
        due.send_replace(());
    }
}
