//! PostgreSQL's notifications, by which processes hear of each other's commits. They are hints: one that is lost costs a
//! moment, never an event or a job.

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

/// The channel on which processes tell each other that something happened to products.
pub const EVENTS: &str = "pm_events";

/// Between two tries to listen again.
const RECONNECT: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
    jitter: 0.2,
};

/// Listens while it lives.
#[derive(Debug)]
pub struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the processes that listen on `channel`, at the commit if this is a transaction; only PostgreSQL can.
///
/// # Errors
/// If the database does not answer.
pub async fn notify(connection: &impl ConnectionTrait, channel: &str) -> Result<(), Error> {
    if connection.get_database_backend() == DbBackend::Postgres {
        const NOTIFY: &str = "SELECT pg_notify($1, '')";
        connection.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, NOTIFY, [channel.into()])).await?;
    }
    Ok(())
}

/// Calls `wake` for each notification on `channel`, and whenever some may have been missed; `None` on SQLite, which has
/// none, and behind a pooler in transaction mode, which passes none on, unless there is a direct address.
///
/// It takes one connection of its own beside those of `database`, which comes back by itself, and ends when what this answers
/// is dropped: the connections of `database` may be replaced meanwhile. Needs a tokio runtime.
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
    // One connection, so that listening never takes one from those who write.
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
            warn!(error = %error, channel, "lost the database's notifications; it is asked each second instead");
        } else {
            debug!(error = %error, channel, "the database's notifications are still away");
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
        info!(channel, "the database's notifications are back");
    }
    // What was notified while nobody listened is not repeated.
    wake();
    loop {
        if listener.try_recv().await?.is_none() {
            return Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()));
        }
        wake();
    }
}
