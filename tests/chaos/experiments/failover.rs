//! P29: no stale read after a failover of Redis. The address of Redis switches to a replica and back, with and without
//! promotion, while P9's readers and writers run; a server is flushed, or killed and restarted from an old snapshot.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::reads_are_never_stale::{self, Faults};
use crate::{engines::Redis, proxy::Proxy, soundness::Counts, stage::Stage};

/// Two servers behind one address.
pub(super) struct Failovers {
    address: Proxy,
    standby: Redis,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let standby = Redis::prepare(&stage.directory.join("standby")).await?;
    standby.start().await?;
    let address = Proxy::start(stage.engines().redis.address()).await;
    stage.configure("REDIS_URL", Redis::url(address.address()));
    let failovers = Failovers { address, standby };
    failovers.follow(&failovers.standby, &stage.engines().redis).await?;
    let faults = Faults::Failovers(Box::new(failovers));
    let counts = reads_are_never_stale::run_with(stage, &faults).await;
    let Faults::Failovers(failovers) = faults else { return counts };
    stage.engines().redis.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
    failovers.standby.kill().await;
    counts
}

impl Failovers {
    /// Injects faults in random order until the time is over; returns their number.
    pub(super) async fn happen(&self, stage: &Stage, until: Instant) -> anyhow::Result<usize> {
        let mut random = stage.random(29);
        let servers = [&stage.engines().redis, &self.standby];
        let (mut master, mut count) = (0, 0);
        while Instant::now() + Duration::from_secs(4) < until {
            sleep(Duration::from_millis(random.u64(500..1_500))).await;
            let (before, after) = (servers[master], servers[1 - master]);
            match random.u8(..6) {
                // The other server is promoted, and the former master replicates it.
                0 | 1 => {
                    after.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
                    self.address.switch_to(after.address());
                    self.follow(before, after).await?;
                    master = 1 - master;
                }
                // Both are masters: the former one keeps its data.
                2 => {
                    after.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
                    self.address.switch_to(after.address());
                    master = 1 - master;
                }
                // It replicates the other server for a while, with its connections open, and is promoted again.
                3 => {
                    after.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
                    sleep(Duration::from_millis(random.u64(..500))).await;
                    self.follow(before, after).await?;
                    for _ in 0..50 {
                        sleep(Duration::from_millis(20)).await;
                        let info: String = before.command(&["INFO", "replication"]).await?;
                        if info.contains("master_link_status:up") {
                            break;
                        }
                    }
                    before.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
                    self.follow(after, before).await?;
                }
                // All data are flushed.
                4 => before.command::<()>(&["FLUSHALL"]).await?,
                // The server restarts from an old snapshot.
                _ => {
                    let _ = before.command::<String>(&["SAVE"]).await;
                    sleep(Duration::from_millis(random.u64(100..600))).await;
                    before.kill().await;
                    before.start().await?;
                }
            }
            count += 1;
        }
        Ok(count)
    }

    async fn follow(&self, replica: &Redis, master: &Redis) -> anyhow::Result<()> {
        let address = master.address();
        let words = ["REPLICAOF".to_owned(), address.ip().to_string(), address.port().to_string()];
        replica.command::<String>(&words.each_ref().map(String::as_str)).await?;
        Ok(())
    }
}
