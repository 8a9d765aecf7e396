//! Retry policies; the backoff is a pure function of the attempt.

use std::time::Duration;

/// How often and after which delays a failed step is retried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Total attempts, including the first.
    pub attempts: u32,
    /// Delay before the second attempt; doubles with each further one.
    pub first: Duration,
    /// Maximum computed delay.
    pub longest: Duration,
    /// Random deviation as a fraction of the delay, 0.0 to 1.0.
    pub jitter: f64,
}

/// Five attempts; 5 s doubling up to 10 min, ±20 %.
pub const TRANSIENT: Policy =
    Policy { attempts: 5, first: Duration::from_secs(5), longest: Duration::from_secs(600), jitter: 0.2 };

/// Two attempts, for errors that are almost certainly permanent, such as an unknown host.
pub const DOUBTFUL: Policy = Policy { attempts: 2, ..TRANSIENT };

/// Unlimited attempts, for a full or unavailable blob store: the image is not at fault.
pub const OWN_STORE: Policy =
    Policy { attempts: u32::MAX, first: Duration::from_secs(5), longest: Duration::from_secs(60), jitter: 0.2 };

/// Maximum delay accepted from an origin's `Retry-After`.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

impl Policy {
    /// Returns the delay after failed attempt `attempt` (the first is 1); `None` if no attempt is left.
    ///
    /// `asked_for` is the origin's `Retry-After`. It overrides the computed delay unless it is zero, because immediate
    /// retries do not help. `chance` is uniform in 0.0..1.0.
    pub fn delay(&self, attempt: u32, asked_for: Option<Duration>, chance: f64) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        if let Some(requested) = asked_for.filter(|requested| !requested.is_zero()) {
            return Some(requested.min(MAX_RETRY_AFTER));
        }
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let factor = 1.0 + self.jitter * (2.0 * chance - 1.0);
        Some(doubled.min(self.longest).mul_f64(factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_the_jitter_and_end_with_the_attempts() {
        for (attempt, nominal) in [(1, 5.0), (2, 10.0), (3, 20.0), (4, 40.0)] {
            for chance in [0.0, 0.5, 0.999] {
                let delay = TRANSIENT.delay(attempt, None, chance).expect("an attempt is left").as_secs_f64();
                assert!((nominal * 0.8..=nominal * 1.2).contains(&delay), "attempt {attempt}: {delay} s");
            }
        }
        assert_eq!(TRANSIENT.delay(5, None, 0.5), None);
        assert_eq!(DOUBTFUL.delay(2, None, 0.5), None);
    }

    #[test]
    fn retry_after_is_followed_up_to_an_hour() {
        assert_eq!(TRANSIENT.delay(1, Some(Duration::from_secs(90)), 0.0), Some(Duration::from_secs(90)));
        assert_eq!(TRANSIENT.delay(1, Some(Duration::from_secs(90_000)), 0.0), Some(MAX_RETRY_AFTER));
    }
}
