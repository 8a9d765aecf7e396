//! PostgreSQL, Redis and RabbitMQ as processes of this program, which may therefore be killed, frozen and robbed of their
//! data. Nothing of the machine's own services is touched.

pub mod postgres;
pub mod programs;
pub mod rabbitmq;
pub mod redis;

use std::{path::Path, time::Duration};

use anyhow::Context as _;

pub use self::{postgres::Postgres, rabbitmq::RabbitMq, redis::Redis};

/// An engine answers within this after its start, also on a machine that is busy.
pub const START_LIMIT: Duration = Duration::from_secs(90);

/// All three, each at an address of its own that stays the same.
pub struct Engines {
    /// The database.
    pub postgres: Postgres,
    /// The cache.
    pub redis: Redis,
    /// The broker.
    pub rabbitmq: RabbitMq,
}

impl Engines {
    /// Programs that are needed and not there, with the Debian packages that bring them.
    pub fn missing() -> Vec<&'static str> {
        let mut missing = Vec::new();
        missing.extend(postgres::missing());
        missing.extend(redis::missing());
        missing.extend(rabbitmq::missing());
        missing
    }

    /// Starts all of them side by side, with their files below `directory`.
    ///
    /// # Errors
    /// If one of them does not answer in time; its log is in `directory`.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let [postgres, redis, rabbitmq] = ["postgres", "redis", "rabbitmq"].map(|name| directory.join(name));
        let (postgres, redis, rabbitmq) =
            tokio::try_join!(Postgres::prepare(&postgres), Redis::prepare(&redis), RabbitMq::prepare(&rabbitmq))?;
        let engines = Self { postgres, redis, rabbitmq };
        engines.restore().await?;
        Ok(engines)
    }

    /// Brings every engine up that is down, stopped or frozen, and waits until all of them answer.
    ///
    /// # Errors
    /// If one does not answer in time.
    pub async fn restore(&self) -> anyhow::Result<()> {
        tokio::try_join!(self.postgres.start(), self.redis.start(), self.rabbitmq.start())?;
        Ok(())
    }

    /// Ends all of them.
    pub async fn stop(&self) {
        tokio::join!(self.postgres.kill(), self.redis.kill(), self.rabbitmq.kill());
    }
}

/// Asks again and again until `answers` says yes.
///
/// # Errors
/// If it has not within `limit`.
pub async fn wait_until(what: &str, limit: Duration, mut answers: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let asking = async {
        while !answers().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, asking).await.with_context(|| format!("{what}: not within {limit:?}"))
}
