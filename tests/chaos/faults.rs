//! What happens to engines: each fault is done and undone, so that every engine is up when it is over. Mixed sequences
//! follow from a seed; single faults do not find what mixed ones do.

use std::time::Duration;

use crate::stage::{Proxies, Stage};

/// An engine of the full set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The database.
    Postgres,
    /// The cache.
    Redis,
    /// The broker.
    RabbitMq,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Killed, and started again.
    Kill,
    /// Ended in order, and started again. RabbitMQ's node stays, its application goes and comes.
    Restart,
    /// All its processes stopped in their tracks for the time of the fault.
    Freeze,
    /// Its clients are cut off by itself; Redis, which has no such command for all, lets them wait instead.
    DropClients,
    /// Nothing comes through to it or from it, and no connection ends. Needs proxies.
    Silence,
    /// Every connection breaks off by a reset, and so do new ones for the time of the fault. Needs proxies.
    Reset,
}

/// One thing that happens to one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// To which.
    pub engine: Engine,
    /// What.
    pub kind: Kind,
    /// For how long the engine is away, beside the time that it takes to come back.
    pub lasts: Duration,
}

/// `count` of these in a mixed order: all of them come up before one does again. Each lasts up to `longest`.
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
    /// Lets it happen, and undoes it; every engine answers afterwards.
    ///
    /// # Errors
    /// If an engine does not come back, or the fault needs proxies and there are none.
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
