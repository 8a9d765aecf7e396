//! PostgreSQL, Redis and RabbitMQ as child processes that experiments may kill, freeze and strip of their data. The
//! machine's own services are never touched.

pub mod postgres;
pub mod programs;
pub mod rabbitmq;
pub mod redis;

use std::{path::Path, time::Duration};

use anyhow::Context as _;

pub use self::{postgres::Postgres, rabbitmq::RabbitMq, redis::Redis};

/// Time limit for an engine to answer after its start, also on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(90);

/// The three engines. Each keeps its address across restarts.
pub struct Engines {
    /// PostgreSQL.
    pub postgres: Postgres,
    /// Redis.
    pub redis: Redis,
    /// RabbitMQ.
    pub rabbitmq: RabbitMq,
}

impl Engines {
    /// Returns the missing programs, with the Debian packages that contain them.
    pub fn missing() -> Vec<&'static str> {
        let mut missing = Vec::new();
        missing.extend(postgres::missing());
        missing.extend(redis::missing());
        missing.extend(rabbitmq::missing());
        missing
    }

    /// Starts all engines in parallel, with their files below `directory`.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let [postgres, redis, rabbitmq] = ["postgres", "redis", "rabbitmq"].map(|name| directory.join(name));
        let (postgres, redis, rabbitmq) =
            tokio::try_join!(Postgres::prepare(&postgres), Redis::prepare(&redis), RabbitMq::prepare(&rabbitmq))?;
        let engines = Self { postgres, redis, rabbitmq };
        engines.restore().await?;
        Ok(engines)
    }

    /// Brings every stopped or frozen engine back up, and waits until all answer.
    pub async fn restore(&self) -> anyhow::Result<()> {
        tokio::try_join!(self.postgres.start(), self.redis.start(), self.rabbitmq.start())?;
        Ok(())
    }

    /// Stops all engines.
    pub async fn stop(&self) {
        tokio::join!(self.postgres.kill(), self.redis.kill(), self.rabbitmq.kill());
    }
}

/// Polls until `answers` returns true.
pub async fn wait_until(what: &str, limit: Duration, mut answers: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let asking = async {
        while !answers().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, asking).await.with_context(|| format!("{what}: not reached within {limit:?}"))
}
