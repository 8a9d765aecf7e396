//! How long to leave Redis alone after failures: a count of failures in a row. It knows no clock and waits for nothing.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// So many failures in a row open the breaker.
const OPEN_AFTER: u32 = 3;

/// While it is open, one attempt is made in this time.
const HALF_OPEN_EVERY: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
}

impl Breaker {
    /// Something failed.
    pub(super) fn failure(&self) {
        // Saturating, since an outage of years must not close the breaker for a moment.
        let add = |failures: u32| failures.checked_add(1);
        let _ = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// Something worked.
    pub(super) fn success(&self) {
        // Read first: a write by every request would send the cache line from core to core.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// How long to wait before the next attempt: not at all after a first failure, which mostly is a connection that
    /// was closed while idle.
    pub(super) fn pause(&self) -> Duration {
        match self.failures.load(Ordering::Acquire) {
            0 | 1 => Duration::ZERO,
            2 => Duration::from_millis(50),
            OPEN_AFTER.. => HALF_OPEN_EVERY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_failure_in_a_row_opens_it_and_a_success_closes_it() {
        let breaker = Breaker::default();
        breaker.failure();
        breaker.failure();
        assert!(breaker.pause() < HALF_OPEN_EVERY);

        breaker.failure();
        assert_eq!(breaker.pause(), HALF_OPEN_EVERY);

        breaker.success();
        assert_eq!(breaker.pause(), Duration::ZERO);
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_open_it() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failure();
            breaker.failure();
            breaker.success();
        }
        assert_eq!(breaker.pause(), Duration::ZERO);
    }
}
