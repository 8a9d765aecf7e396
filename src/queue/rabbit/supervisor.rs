//! Reconnects to the broker, and logs each loss and each recovery once.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Error, Role, Target, connection::BrokerConnection};
use crate::retry;

/// Retry policy for connecting.
const RECONNECT: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
    jitter: 0.2,
};

/// Minimum pause before a deleted queue is declared again.
///
/// RabbitMQ tells each consumer of a deleted quorum queue that it is canceled. If the name is declared again before that,
/// within some 20 ms on an idle broker, the old consumer is attached to the new queue: it takes messages, which the
/// broker then never delivers, and is never canceled.
const REDECLARE: Duration = Duration::from_secs(1);

/// A connection that lasted this long resets the retry pause.
const STABLE: Duration = Duration::from_secs(5);

/// Reconnects the connection of one role.
pub(super) struct Supervisor {
    target: Arc<Target>,
    role: Role,
    /// Failed attempts since the last stable connection.
    failures: u32,
    /// Whether the last connection was lost because its queue was deleted.
    queue_gone: bool,
    state: State,
}

enum State {
    Starting,
    Connected(Instant),
    Unavailable,
}

impl Supervisor {
    pub(super) fn new(target: Arc<Target>, role: Role) -> Self {
        // Registers the metric before the first connection.
        gauge!("pm_queue_connected", "role" => role.label()).increment(0.0);
        Self { target, role, failures: 0, queue_gone: false, state: State::Starting }
    }

    /// Retries until there is a connection; calls `failed` for each failed attempt.
    pub(super) async fn connect(&mut self, mut failed: impl FnMut(&Error)) -> BrokerConnection {
        loop {
            if self.failures > 0 {
                let pause = RECONNECT.delay(self.failures, None, fastrand::f64()).unwrap_or(RECONNECT.longest);
                tokio::time::sleep(if self.queue_gone { pause.max(REDECLARE) } else { pause }).await;
            }
            match BrokerConnection::open(Arc::clone(&self.target), self.role).await {
                Ok(connection) => {
                    self.found(&connection);
                    return connection;
                }
                Err(error) => {
                    failed(&error);
                    self.lost(&error);
                }
            }
        }
    }

    /// Records that there is no connection because of `error`.
    pub(super) fn lost(&mut self, error: &Error) {
        let role = self.role.label();
        match self.state {
            State::Unavailable => debug!(role, error = %describe(error), "the message broker is still unavailable"),
            State::Starting | State::Connected(_) if matches!(error, Error::Renamed) => {
                info!(role, "{error}; connecting to its queue");
            }
            State::Starting | State::Connected(_) => {
                warn!(role, error = %describe(error), "no connection to the message broker; retrying");
            }
        }
        if matches!(self.state, State::Connected(since) if since.elapsed() >= STABLE) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.queue_gone = error.is_missing_queue();
        self.leave();
    }

    fn found(&mut self, connection: &BrokerConnection) {
        let role = self.role.label();
        info!(role, queue = connection.queue(), "connected to the message broker");
        self.state = State::Connected(Instant::now());
        gauge!("pm_queue_connected", "role" => role).increment(1.0);
    }

    fn leave(&mut self) {
        if matches!(std::mem::replace(&mut self.state, State::Unavailable), State::Connected(_)) {
            gauge!("pm_queue_connected", "role" => self.role.label()).decrement(1.0);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Returns the error with its cause, which has the broker's own text.
fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
