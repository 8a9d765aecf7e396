//! Circuit breaker for Redis: counts consecutive failures and gives the pause. It reads no clock.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Consecutive failures that open the breaker.
const OPEN_AFTER: u32 = 3;

/// Interval between attempts while the breaker is open.
const HALF_OPEN_EVERY: Duration = Duration::from_secs(1);

/// Counts consecutive failures.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
}

impl Breaker {
    /// Records a failure.
    pub(super) fn failure(&self) {
        // Saturating, so that the counter never wraps and closes the breaker in a long outage.
        let add = |failures: u32| failures.checked_add(1);
        let _ = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// Records a success.
    pub(super) fn success(&self) {
        // Reads first: a write per request would move the cache line between cores.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// Returns the pause before the next attempt.
    /// It is zero after a first failure, usually a connection that was closed while idle.
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
    fn the_third_consecutive_failure_opens_the_breaker_and_a_success_closes_it() {
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
    fn failures_that_are_not_consecutive_do_not_open_the_breaker() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failure();
            breaker.failure();
            breaker.success();
        }
        assert_eq!(breaker.pause(), Duration::ZERO);
    }
}
