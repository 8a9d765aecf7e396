//! Rate limiting per client.
//!
//! Redis counts requests for all processes. While it is absent or unavailable, each process counts for itself.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use moka::sync::Cache as Table;
use parking_lot::Mutex;

use crate::{
    cache::Cache,
    code::ErrorCode,
    domain::{Quota, Spent},
    http::problem::Problem,
};

/// Maximum number of clients counted in this process; beyond it, the least recently seen ones are evicted.
const MAX_CLIENTS: u64 = 100_000;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A quota for each client.
pub struct RateLimit {
    quota: Quota,
    shared: Cache,
    /// The time at which each client's burst is full again, in microseconds since `began`.
    local: Table<String, Arc<Mutex<u64>>>,
    /// The origin of times in this process.
    began: Instant,
}

/// The rest of a client's quota.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    quota: Quota,
    spent: Spent,
}

impl RateLimit {
    /// Creates a rate limit. All processes with the same Redis share it.
    pub fn new(quota: Quota, shared: Cache) -> Self {
        // After its window a client has its full quota again, so its entry can expire.
        let local = Table::builder().max_capacity(MAX_CLIENTS).time_to_idle(quota.window() * 2).build();
        Self { quota, shared, local, began: Instant::now() }
    }

    /// Counts one request of this client.
    pub async fn spend(&self, client: &str) -> Allowance {
        let spent = match self.shared.spend(client, self.quota).await {
            Some(spent) => spent,
            None => self.spend_here(client),
        };
        if !spent.allowed {
            metrics::counter!("pm_http_rate_limited_total").increment(1);
        }
        Allowance { quota: self.quota, spent }
    }

    fn spend_here(&self, client: &str) -> Spent {
        let full_at = self.local.entry_by_ref(client).or_default().into_value();
        let mut full_at = full_at.lock();
        // Monotonic time: a wall clock set back would refuse all requests until it catches up.
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (spent, next) = self.quota.spend(*full_at, now);
        *full_at = next;
        spent
    }
}

impl Allowance {
    /// Checks whether the request is within the quota.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn outcome(&self) -> Result<(), Problem> {
        if self.spent.allowed {
            return Ok(());
        }
        let detail =
            format!("rate limit exceeded: {} requests, then one every {:?}", self.quota.burst, self.quota.interval);
        let seconds = HeaderValue::from(whole_seconds(self.spent.retry_after).max(1));
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, detail)
            .with_header(header::RETRY_AFTER, seconds))
    }

    /// Adds `RateLimit-Policy` and `RateLimit` (IETF draft).
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        let window = whole_seconds(self.quota.window()).max(1);
        let policy = format!("\"default\";q={};w={window}", self.quota.burst);
        let left = format!("\"default\";r={};t={}", self.spent.remaining, whole_seconds(self.spent.full_after));
        for (name, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Rounds up to whole seconds, so that clients do not retry too early.
fn whole_seconds(span: std::time::Duration) -> u64 {
    span.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_client_has_its_own_burst_and_gets_the_remaining_quota() {
        let limit = RateLimit::new(Quota::parse("1/h,burst=2").expect("a quota"), Cache::Off);
        let mut headers = HeaderMap::new();
        limit.spend("a").await.add_headers(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=2;w=7200");
        assert!(headers["ratelimit"].to_str().expect("text").starts_with("\"default\";r=1;t="), "{headers:?}");
        assert!(limit.spend("a").await.outcome().is_ok());
        let head = limit.spend("a").await.outcome().expect_err("refused").head();
        assert_eq!(head.status(), 429);
        let seconds: u64 = head.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
        assert!((3_590..=3_600).contains(&seconds), "{seconds}");
        assert!(limit.spend("b").await.outcome().is_ok());
    }
}
