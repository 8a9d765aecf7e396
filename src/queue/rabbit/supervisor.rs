//! Brings a connection back again and again, and says once when it is lost and once when it is back.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Error, Role, Target, line::Line};
use crate::retry;

/// Between two tries to connect.
const RECONNECT: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
    jitter: 0.2,
};

/// A connection that held for this long was well: the next pause is a short one again.
const STABLE: Duration = Duration::from_secs(5);

/// Who replaces the lines of one role.
pub(super) struct Supervisor {
    target: Arc<Target>,
    role: Role,
    /// Since the last stable connection.
    failures: u32,
    state: State,
}

enum State {
    Starting,
    Connected(Instant),
    Away,
}

impl Supervisor {
    pub(super) fn new(target: Arc<Target>, role: Role) -> Self {
        // Makes the figure known before the first connection.
        gauge!("pm_queue_connected", "role" => role.label()).increment(0.0);
        Self { target, role, failures: 0, state: State::Starting }
    }

    /// Tries until there is a connection; `failed` hears of each try that was in vain.
    pub(super) async fn connect(&mut self, mut failed: impl FnMut(&Error)) -> Line {
        loop {
            if self.failures > 0 {
                let pause = RECONNECT.delay(self.failures, None, fastrand::f64()).unwrap_or(RECONNECT.longest);
                tokio::time::sleep(pause).await;
            }
            match Line::open(Arc::clone(&self.target), self.role).await {
                Ok(line) => {
                    self.found(&line);
                    return line;
                }
                Err(error) => {
                    failed(&error);
                    self.lost(&error);
                }
            }
        }
    }

    /// Takes note that there is no connection, because of `error`.
    pub(super) fn lost(&mut self, error: &Error) {
        let role = self.role.label();
        match self.state {
            State::Away => debug!(role, error = %describe(error), "the message broker is still away"),
            State::Starting | State::Connected(_) if matches!(error, Error::Renamed) => {
                info!(role, "{error}; connects to the queue of that one");
            }
            State::Starting | State::Connected(_) => {
                warn!(role, error = %describe(error), "no connection to the message broker; trying again and again");
            }
        }
        if matches!(self.state, State::Connected(since) if since.elapsed() >= STABLE) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.leave();
    }

    fn found(&mut self, line: &Line) {
        let role = self.role.label();
        info!(role, queue = line.queue(), "connected to the message broker");
        self.state = State::Connected(Instant::now());
        gauge!("pm_queue_connected", "role" => role).increment(1.0);
    }

    fn leave(&mut self) {
        if matches!(std::mem::replace(&mut self.state, State::Away), State::Connected(_)) {
            gauge!("pm_queue_connected", "role" => self.role.label()).decrement(1.0);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The error with its cause: the broker's own words are in the cause.
fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
