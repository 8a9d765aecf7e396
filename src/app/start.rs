//! The start of programs that go on running: a component that is away for a moment is waited for.

use std::time::{Duration, Instant};

use super::{Access, App, Error, secret_keys};
use crate::{config::Settings, retry};

/// A program that is started beside its database waits this long for it.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Between two tries.
const PAUSES: retry::Policy = retry::Policy {
    attempts: u32::MAX,
    first: Duration::from_millis(200),
    longest: Duration::from_secs(2),
    jitter: 0.2,
};

impl App {
    /// As [`App::open`], for `serve` and `worker`: while a component does not answer, or the catalogue is not made yet, it is
    /// tried again, for up to 30 s.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn start(settings: &Settings, access: Access) -> Result<Self, Error> {
        let began = Instant::now();
        let mut failures = 0_u32;
        loop {
            match Box::pin(Self::open(settings.clone(), access)).await {
                // A worker that starts before `pm serve` after an update shares the key that it makes.
                Ok(app) if !app.catalog.encrypts_secrets() && secret_keys(settings, true).await?.is_some() => continue,
                Err(error) if is_awaited(&error, access) && began.elapsed() < START_LIMIT => {
                    failures += 1;
                    if failures == 1 {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "cannot start yet; tries again for {} s", START_LIMIT.as_secs());
                    }
                }
                outcome => return outcome,
            }
            let pause = PAUSES.delay(failures, None, fastrand::f64()).unwrap_or(PAUSES.longest);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether waiting may help. A worker that is started together with `pm serve` waits for that one to make the catalogue.
fn is_awaited(error: &Error, access: Access) -> bool {
    error.is_transient() || (access == Access::Existing && matches!(error, Error::NoCatalogue { .. }))
}
