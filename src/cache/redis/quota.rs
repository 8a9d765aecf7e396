//! Client quotas, counted in Redis by one script and Redis' clock, so that all processes share them.

use std::sync::LazyLock;

use redis::Script;

use super::{super::Error, RedisCache};
use crate::domain::{Quota, Spent};

/// Advances the time at which the client's burst is full again by one interval.
/// It does not if the new time would be more than one whole burst ahead. The time is never further ahead, even after
/// the clock went back. Returns whether it advanced, the current time, and the stored time. Microseconds since 1970
/// are exact in a double.
static SPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = time[1] * 1000000 + time[2]
         local interval = tonumber(ARGV[1])
         local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
         full_at = math.min(full_at, now + interval * ARGV[2])
         if full_at + interval > now + interval * ARGV[2] then return {0, now, full_at} end
         full_at = full_at + interval
         redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
         return {1, now, full_at}",
    )
});

impl RedisCache {
    /// Counts one request of this client, in one round trip.
    pub(in crate::cache) async fn spend(&self, client: &str, quota: Quota) -> Result<Spent, Error> {
        let live = self.link.connected()?;
        let mut connection = live.connection();
        let mut script = SPEND.key(live.key_of_client(client));
        script.arg(u64::try_from(quota.interval.as_micros()).unwrap_or(u64::MAX)).arg(quota.burst);
        let (allowed, now, full_at): (bool, u64, u64) =
            self.link.run(&live, script.invoke_async(&mut connection)).await?;
        Ok(quota.describe(allowed, full_at, now))
    }
}
