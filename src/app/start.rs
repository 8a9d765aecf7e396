//! Starts `serve` and `worker`, and waits for components that are briefly unavailable.

use std::time::{Duration, Instant};

use super::{Access, App, Error, secret_keys};
use crate::{config::Settings, retry};

/// How long a starting process waits for its database.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Delays between attempts.
const PAUSES: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(2),
    jitter: 0.2,
};

impl App {
    /// Opens the app for `serve` and `worker`, with retries for up to 30 s.
    ///
    /// Retries while a component does not answer or the catalog does not exist yet.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn start(settings: &Settings, access: Access) -> Result<Self, Error> {
        let began = Instant::now();
        let mut failures = 0_u32;
        loop {
            match Box::pin(Self::open(settings.clone(), access)).await {
                // After an update a worker may start before `pm serve`. It creates the key file, which both then share.
                Ok(app) if !app.catalog.encrypts_secrets() && secret_keys(settings, true).await?.is_some() => continue,
                Err(error) if is_awaited(&error, access) && began.elapsed() < START_LIMIT => {
                    failures += 1;
                    if failures == 1 {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot start yet; retrying for up to {} s", START_LIMIT.as_secs());
                    }
                }
                outcome => return outcome,
            }
            let pause = PAUSES.delay(failures, None, fastrand::f64()).unwrap_or(PAUSES.longest);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Returns whether waiting may help. A worker started together with `pm serve` waits until that creates the catalog.
fn is_awaited(error: &Error, access: Access) -> bool {
    error.is_transient() || (access == Access::Existing && matches!(error, Error::NoCatalog { .. }))
}
