//! P4: acknowledged writes survive. Products are created at a steady rate while the engines and `pm serve` are killed
//! and restarted in random order, and the database closes its client connections every 2 s. At the end every product
//! acknowledged with 201 exists, once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use serde_json::json;

use super::traffic::{self, Pace};
use crate::{
    api::Api,
    faults::{self, Engine, Kind},
    ledger::Ledger,
    origin::Origin,
    program::Server,
    soundness::{self, Counts},
    stage::{Setup, Stage},
};

const ENGINE_FAULTS: &[(Engine, Kind)] = &[
    (Engine::Postgres, Kind::Kill),
    (Engine::Postgres, Kind::Restart),
    (Engine::RabbitMq, Kind::Kill),
    (Engine::RabbitMq, Kind::Restart),
    (Engine::Redis, Kind::Kill),
    (Engine::Redis, Kind::Restart),
    (Engine::Postgres, Kind::Freeze),
    (Engine::Redis, Kind::Freeze),
];
const CUT_OFF_EVERY: Duration = Duration::from_secs(2);

/// Number of faults by kind during the writes.
#[derive(Clone, Copy, Default)]
struct FaultCounts {
    engine_faults: u64,
    server_kills: u64,
    server_stops: u64,
    clients_cut_off: usize,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (per_second, lasts) = stage.size((50, Duration::from_secs(8)), (200, Duration::from_secs(600)));
    let origin = Origin::start().await;
    let image = traffic::one_image(&origin);
    let mut server = stage.serve(&["--workers", "1"]).await?;
    let ledger = Ledger::default();
    let api = server.api();
    let until = Instant::now() + lasts;
    let fault_counts = Cell::new(FaultCounts::default());
    let plain = Pace { name: "plain", per_second: per_second - per_second / 10, lasts, images: vec![] };
    let imaged = Pace { name: "imaged", per_second: per_second / 10, lasts, images: vec![image] };
    let (latencies, _, injected, cut) = tokio::join!(
        traffic::post(&ledger, &api, &plain),
        traffic::post(&ledger, &api, &imaged),
        inject_faults(stage, &mut server, until, &fault_counts),
        cut_clients_off(stage, until, &fault_counts),
    );
    injected?;
    cut?;
    if stage.setup == Setup::Full {
        stage.engines().restore().await?;
    }
    // No `Retry-After` is longer than this.
    stage.settled(Duration::from_secs(120)).await?;
    let audit = ledger.audit(stage, &api).await?;
    audit.is_clean()?;
    let mut counts = soundness::check(stage).await?;
    let tally = ledger.tally();
    anyhow::ensure!(tally.acknowledged > u64::from(per_second), "too few requests to prove anything: {tally:?}");
    let (done, failed) = (fault_counts.get(), &counts["images_failed"]);
    anyhow::ensure!(*failed == 0, "{failed} valid images failed");
    for (name, count) in [
        ("acknowledged", tally.acknowledged),
        ("refused", tally.refused),
        ("unanswered", tally.unanswered),
        ("engine_faults", done.engine_faults),
        ("server_kills", done.server_kills),
        ("server_stops", done.server_stops),
        ("clients_cut_off", done.clients_cut_off as u64),
        ("missing", audit.missing.len() as u64),
        ("duplicates", audit.duplicates.len() as u64),
    ] {
        counts.insert(name.into(), json!(count));
    }
    counts.insert("p99_ms".into(), json!(latencies.p99().as_millis()));
    server.process.kill().await;
    Ok(counts)
}

/// Injects one fault after the other: every third one hits the server, the others an engine.
async fn inject_faults(
    stage: &Stage,
    server: &mut Server,
    until: Instant,
    fault_counts: &Cell<FaultCounts>,
) -> anyhow::Result<()> {
    let mut random = stage.random(4);
    let api = server.api();
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(random.u64(300..1_000))).await;
        let mut done = fault_counts.get();
        if stage.setup == Setup::Embedded || random.u8(..3) == 0 {
            if random.bool() {
                server.process.kill().await;
                done.server_kills += 1;
            } else {
                server.process.terminate();
                server.process.ended(Duration::from_secs(60)).await?;
                done.server_stops += 1;
            }
            *server = stage.serve(&["--workers", "1"]).await?;
        } else {
            let fault = faults::mixed(&mut random, ENGINE_FAULTS, 1, Duration::from_secs(3));
            fault[0].happen(stage, None).await?;
            done.engine_faults += 1;
        }
        done.clients_cut_off = fault_counts.get().clients_cut_off;
        fault_counts.set(done);
        comes_back(&api).await?;
    }
    Ok(())
}

/// Waits until writes succeed again before the next fault; else there would soon be nothing to lose.
async fn comes_back(api: &Api) -> anyhow::Result<()> {
    crate::engines::wait_until("the server is ready again", Duration::from_secs(60), async || {
        api.get("/readyz").await.is_ok_and(|answer| answer.status == 200)
    })
    .await
}

async fn cut_clients_off(stage: &Stage, until: Instant, fault_counts: &Cell<FaultCounts>) -> anyhow::Result<()> {
    if stage.setup == Setup::Embedded {
        return Ok(());
    }
    while Instant::now() + CUT_OFF_EVERY < until {
        tokio::time::sleep(CUT_OFF_EVERY).await;
        // The database may be unavailable at the moment.
        let cut_off = stage.engines().postgres.terminate_clients(&stage.name).await.unwrap_or(0);
        fault_counts
            .set(FaultCounts { clients_cut_off: fault_counts.get().clients_cut_off + cut_off, ..fault_counts.get() });
    }
    Ok(())
}
