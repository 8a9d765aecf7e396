//! Rate limit of a client: the generic cell rate algorithm (GCRA).
//!
//! It stores one number per client and has no fixed windows. Pure: the caller passes the time in microseconds.

use std::{fmt, time::Duration};

/// A rate limit: up to `burst` requests at once, then one more per `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Time per additional request, in whole microseconds.
    pub interval: Duration,
    /// Maximum requests at once.
    pub burst: u32,
}

/// Result of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// Further requests allowed now.
    pub remaining: u32,
    /// Time until the next request is allowed; zero if one is allowed now.
    pub retry_after: Duration,
    /// Time until the whole burst is available.
    pub full_after: Duration,
}

impl Quota {
    /// Parses `10/s`, `600/m,burst=20` or `100/h`.
    /// The format is a number of requests per second, minute or hour, and an optional burst, which defaults to that
    /// number.
    ///
    /// # Errors
    /// A message with the reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rate, burst) = match text.split_once(',') {
            Some((rate, burst)) => (rate, Some(burst.trim())),
            None => (text, None),
        };
        let (count, unit) = rate.trim().split_once('/').ok_or("has no `/` between number and unit")?;
        let period = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return Err("has an unknown unit; known are s, m, h".into()),
        };
        let number = |text: &str| {
            let number = text.trim().parse::<u32>().ok().filter(|number| (1..=1_000_000).contains(number));
            number.ok_or("has a number that is not between 1 and 1000000")
        };
        let count = number(count)?;
        let burst = match burst.map(|burst| burst.strip_prefix("burst=").ok_or("has an option other than `burst=`")) {
            Some(burst) => number(burst?)?,
            None => count,
        };
        let interval = Duration::from_micros((period / count).as_micros().try_into().unwrap_or(u64::MAX));
        Ok(Self { interval, burst })
    }

    /// Returns the time in which a used burst becomes available again.
    pub fn window(&self) -> Duration {
        self.interval * self.burst
    }

    /// Counts a request at `now`; `full_at` is the time at which the burst is full again.
    /// Returns the result and the new `full_at`.
    pub fn spend(&self, full_at: u64, now: u64) -> (Spent, u64) {
        let full_at = full_at.max(now);
        let next = full_at.saturating_add(micros(self.interval));
        let allowed = next <= now.saturating_add(micros(self.window()));
        let full_at = if allowed { next } else { full_at };
        (self.describe(allowed, full_at, now), full_at)
    }

    /// Returns the values for a client whose burst is full again at `full_at`.
    pub fn describe(&self, allowed: bool, full_at: u64, now: u64) -> Spent {
        let interval = micros(self.interval).max(1);
        let owed = full_at.saturating_sub(now);
        let free = micros(self.window()).saturating_sub(owed);
        let remaining = u32::try_from(free / interval).unwrap_or(u32::MAX);
        let retry_after = if remaining > 0 { 0 } else { interval.saturating_sub(free) };
        Spent {
            allowed,
            remaining,
            retry_after: Duration::from_micros(retry_after),
            full_after: Duration::from_micros(owed),
        }
    }
}

/// Formats the quota as a setting: `600/m,burst=20`, possibly in another unit.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_units = [("s", 1_000_000_u64), ("m", 60_000_000), ("h", 3_600_000_000)];
        let interval = micros(self.interval).max(1);
        let (unit, period) = in_units.into_iter().find(|(_, period)| *period >= interval).unwrap_or(in_units[2]);
        write!(f, "{}/{unit},burst={}", period / interval, self.burst)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(text: &str) -> Quota {
        Quota::parse(text).expect("a quota")
    }

    #[test]
    fn a_quota_is_parsed_and_formatted() {
        assert_eq!(quota("10/s,burst=20"), Quota { interval: Duration::from_millis(100), burst: 20 });
        assert_eq!(quota("600 / m").burst, 600);
        assert_eq!(quota("10/s, burst=20").to_string(), "10/s,burst=20");
        assert_eq!(quota("90/h").to_string(), "1/m,burst=90");
        for text in ["", "10", "10/d", "0/s", "-1/s", "10/s,20", "10/s,burst=0", "1.5/s", "9999999/s"] {
            assert!(Quota::parse(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn no_period_allows_more_requests_than_burst_plus_rate() {
        let quota = quota("10/s,burst=20");
        let (mut full_at, mut allowed) = (0, 0);
        for millisecond in 0..10_000 {
            let (spent, next) = quota.spend(full_at, 1_000_000 + millisecond * 1_000);
            full_at = next;
            allowed += u32::from(spent.allowed);
        }
        assert_eq!(allowed, 20 + 99);
    }

    #[test]
    fn the_result_has_remaining_requests_and_the_time_of_the_next_one() {
        let quota = quota("10/s,burst=2");
        let (first, full_at) = quota.spend(0, 5_000_000);
        assert_eq!((first.allowed, first.remaining, first.retry_after), (true, 1, Duration::ZERO));
        let (second, full_at) = quota.spend(full_at, 5_000_000);
        assert_eq!((second.allowed, second.remaining), (true, 0));
        let (third, same) = quota.spend(full_at, 5_030_000);
        assert_eq!((third.allowed, third.retry_after, same), (false, Duration::from_millis(70), full_at));
        assert!(quota.spend(full_at, 5_100_000).0.allowed);
    }
}
