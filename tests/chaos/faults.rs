//! Faults of engines. Each is injected and reverted; afterwards every engine is up. Mixed sequences follow from a seed,
//! since they find bugs that single faults do not.

use std::time::Duration;

use crate::stage::{Proxies, Stage};

/// An engine of the full set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// RabbitMQ.
    RabbitMq,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kills the engine and starts it again.
    Kill,
    /// Stops the engine cleanly and starts it again. For RabbitMQ only the application stops, not the node.
    Restart,
    /// Freezes all its processes (SIGSTOP) for the duration.
    Freeze,
    /// The engine closes its client connections. Redis has no command for that; it makes clients wait instead.
    DropClients,
    /// No byte passes in either direction, and no connection closes. Needs proxies.
    Silence,
    /// Resets every connection, and every new one for the duration. Needs proxies.
    Reset,
}

/// One fault of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The affected engine.
    pub engine: Engine,
    /// The kind.
    pub kind: Kind,
    /// Duration of the fault, without the time to restart.
    pub lasts: Duration,
}

/// Returns `count` faults in random order: each kind appears once before any repeats. Each lasts up to `longest`.
pub fn mixed(random: &mut fastrand::Rng, kinds: &[(Engine, Kind)], count: usize, longest: Duration) -> Vec<Fault> {
    let mut faults = Vec::with_capacity(count);
    while faults.len() < count && !kinds.is_empty() {
        let mut round = kinds.to_vec();
        random.shuffle(&mut round);
        for (engine, kind) in round.into_iter().take(count - faults.len()) {
            faults.push(Fault { engine, kind, lasts: longest.mul_f64(0.2 + 0.8 * random.f64()) });
        }
    }
    faults
}

impl Fault {
    /// Injects the fault and reverts it; every engine answers afterwards.
    pub async fn happen(&self, stage: &Stage, proxies: Option<&Proxies>) -> anyhow::Result<()> {
        match (self.kind, proxies) {
            (Kind::Silence | Kind::Reset, Some(proxies)) => self.happen_between(proxies).await,
            (Kind::Silence | Kind::Reset, None) => anyhow::bail!("{self:?} needs a proxy"),
            _ => self.happen_inside(stage).await?,
        }
        Ok(())
    }

    async fn happen_between(&self, proxies: &Proxies) {
        let proxy = match self.engine {
            Engine::Postgres => &proxies.postgres,
            Engine::Redis => &proxies.redis,
            Engine::RabbitMq => &proxies.rabbitmq,
        };
        if self.kind == Kind::Silence {
            proxy.stall()
        } else {
            proxy.cut()
        }
        tokio::time::sleep(self.lasts).await;
        proxy.restore();
    }

    async fn happen_inside(&self, stage: &Stage) -> anyhow::Result<()> {
        match self.engine {
            Engine::Postgres => self.happen_to_postgres(stage).await,
            Engine::Redis => self.happen_to_redis(stage).await,
            Engine::RabbitMq => self.happen_to_rabbitmq(stage).await,
        }
    }

    async fn happen_to_postgres(&self, stage: &Stage) -> anyhow::Result<()> {
        let postgres = &stage.engines().postgres;
        match self.kind {
            Kind::Kill => postgres.kill().await,
            Kind::Freeze => postgres.freeze().await,
            Kind::DropClients => return postgres.terminate_clients(&stage.name).await.map(|_| ()),
            _ => postgres.stop().await?,
        }
        tokio::time::sleep(self.lasts).await;
        postgres.start().await
    }

    async fn happen_to_redis(&self, stage: &Stage) -> anyhow::Result<()> {
        let redis = &stage.engines().redis;
        match self.kind {
            Kind::Kill => redis.kill().await,
            Kind::Freeze => redis.freeze().await,
            Kind::DropClients => redis.pause_clients(self.lasts).await?,
            _ => redis.stop().await?,
        }
        tokio::time::sleep(self.lasts).await;
        redis.start().await
    }

    async fn happen_to_rabbitmq(&self, stage: &Stage) -> anyhow::Result<()> {
        let rabbitmq = &stage.engines().rabbitmq;
        match self.kind {
            Kind::Kill => rabbitmq.kill().await,
            Kind::Freeze => rabbitmq.freeze().await,
            Kind::DropClients => return rabbitmq.close_all_connections().await,
            _ => rabbitmq.stop_application().await?,
        }
        tokio::time::sleep(self.lasts).await;
        rabbitmq.start().await
    }
}
