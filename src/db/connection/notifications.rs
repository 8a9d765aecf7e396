//! PostgreSQL notifications, which tell processes of each other's commits.
//!
//! They are hints: a lost one causes a short delay, but no event or job is lost.

use std::{convert::Infallible, sync::Arc, time::Duration};

use sea_orm::{
    ConnectionTrait, DbBackend, Statement,
    sqlx::{
        self, PgPool,
        postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    },
};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use crate::{
    db::{Connection, Error},
    retry,
};

/// Notification channel for new product events.
pub const EVENTS: &str = "pm_events";

/// Retry policy for listening.
const RECONNECT: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
    jitter: 0.2,
};

/// A subscription, which ends on drop.
#[derive(Debug)]
pub struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Notifies the listeners on `channel`, on commit if this is a transaction. PostgreSQL only.
pub async fn notify(connection: &impl ConnectionTrait, channel: &str) -> Result<(), Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        const NOTIFY: &str = "SELECT pg_notify($1, '')";
        connection.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, NOTIFY, [channel.into()])).await?;
    }
    Ok(())
}

/// Calls `wake` for each notification on `channel`, and when some may have been missed.
///
/// Returns `None` on SQLite, which has no notifications. Also returns `None` behind a pooler in transaction mode, which
/// does not forward them, unless there is a direct URL.
///
/// It uses one connection of its own, not the pool of `database`, and reconnects after a failure. It ends when the
/// result is dropped. Needs a tokio runtime.
pub fn listen(
    database: &Connection,
    channel: &'static str,
    wake: impl Fn() + Send + Sync + 'static,
) -> Option<Listening> {
    if database.get_database_backend() != DbBackend::Postgres {
        return None;
    }
    let options = database.session_options()?;
    Some(Listening(tokio::spawn(listen_for_ever(options, channel, wake)).abort_handle()))
}

async fn listen_for_ever(options: Arc<PgConnectOptions>, channel: &'static str, wake: impl Fn()) {
    // A separate connection, so that listening never takes one from the writers.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options.as_ref().clone());
    let mut failures = 0_u32;
    loop {
        let Err(error) = forward(&pool, channel, &wake, &mut failures).await;
        failures = failures.saturating_add(1);
        if failures == 1 {
            warn!(error = %error, channel, "lost the database's notifications; polling every second instead");
        } else {
            debug!(error = %error, channel, "cannot listen for the database's notifications; retrying");
        }
        let pause = RECONNECT.delay(failures, None, fastrand::f64()).unwrap_or(RECONNECT.longest);
        tokio::time::sleep(pause).await;
    }
}

/// Listens until the connection fails.
async fn forward(
    pool: &PgPool,
    channel: &str,
    wake: &impl Fn(),
    failures: &mut u32,
) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    if std::mem::take(failures) > 0 {
        info!(channel, "listening for the database's notifications again");
    }
    // Notifications sent while no connection was listening are not repeated.
    wake();
    loop {
        if listener.try_recv().await?.is_none() {
            return Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()));
        }
        wake();
    }
}
