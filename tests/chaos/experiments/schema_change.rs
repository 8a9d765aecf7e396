//! P26: the schema may change under a running program. Columns, indexes and tables are added, and some migrations are
//! applied again, while clients read and write and a worker runs. On the full set-up another process starts meanwhile.

use std::{
    cell::RefCell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::{
    api::{Api, product},
    engines::programs,
    measurements::counts,
    origin::Origin,
    soundness::{self, Counts},
    stage::{Form, Setup, Stage},
};

/// Every table with data.
const TABLES: &[&str] = &[
    "jobs",
    "products",
    "images",
    "renditions",
    "users",
    "events",
    "cache_invalidation",
    "product_words",
    "job_attempts",
    "idempotency_keys",
    "webhooks",
    "webhook_deliveries",
    "variants",
    "api_keys",
];

/// Migrations whose tables are not needed to create, change and read products; each is reverted and applied again.
const STEPS: &[(&str, &str)] = &[("m0014_api_keys", "api_keys"), ("m0015_variants", "variants")];

/// Writes may fail for this long after a change.
const WRITES_FAIL_FOR: Duration = Duration::from_secs(2);
/// Pause between two changes; longer than writes may fail.
const BETWEEN_CHANGES: Duration = Duration::from_millis(3_000);
/// Allowed delay of a job, beside its own time on a busy machine.
const JOB_LATE_AFTER: Duration = Duration::from_secs(5);
const JOB_WORK: Duration = Duration::from_secs(2);

/// Requests in flight.
const MAX_IN_FLIGHT: usize = 16;

/// What clients observed.
#[derive(Default)]
struct Seen {
    changes: Vec<Instant>,
    reads: u64,
    writes: u64,
    read_failures: Vec<(Instant, String)>,
    write_failures: Vec<(Instant, String)>,
}

impl Seen {
    fn note(&mut self, write: bool, failure: Option<String>) {
        let (count, failures) = match write {
            true => (&mut self.writes, &mut self.write_failures),
            false => (&mut self.reads, &mut self.read_failures),
        };
        *count += 1;
        failures.extend(failure.map(|failure| (Instant::now(), failure)));
    }

    /// Failures that did not follow a change within two seconds.
    fn late(&self, failures: &[(Instant, String)]) -> Vec<String> {
        let explained = |at: Instant| self.changes.iter().any(|change| at >= *change && at - *change < WRITES_FAIL_FOR);
        failures.iter().filter(|(at, _)| !explained(*at)).map(|(_, failure)| failure.clone()).collect()
    }
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let origin = Origin::start().await;
    origin.serve("/one.png", "image/png", crate::images::png(40, 30));
    let image = origin.url("/one.png");
    let mut server = stage.serve(&["--workers", "2"]).await?;
    let seen = RefCell::new(Seen::default());
    let mut second = None;
    let changed = {
        let api = server.api();
        let changes = change(stage, &seen, &mut second);
        tokio::select! {
            changed = changes => changed,
            () = clients(&api, &seen, &image, stage.size(40, 100)) => unreachable!("clients go on"),
        }
    };
    let changes = changed?;
    stage.settled(Duration::from_secs(60)).await?;
    let late = (JOB_LATE_AFTER + JOB_WORK).as_micros();
    let late = stage.number(&format!("SELECT count(*) FROM jobs WHERE updated_at - created_at > {late}")).await?;
    let jobs = stage.number("SELECT count(*) FROM jobs WHERE state = 'done'").await?;
    let ready = server.api().get("/readyz").await?.status;
    let logs = std::iter::once(&server.process).chain(&second).map(|process| process.output()).collect::<String>();
    let panics = logs.lines().filter(|line| line.contains("panicked")).count();
    let seen = seen.into_inner();
    let (late_writes, late_reads) = (seen.late(&seen.write_failures), seen.late(&seen.read_failures));
    anyhow::ensure!(panics == 0, "{panics} panics: {:?}", logs.lines().find(|line| line.contains("panicked")));
    anyhow::ensure!(late_writes.is_empty(), "{} writes failed, such as {:?}", late_writes.len(), late_writes.first());
    anyhow::ensure!(late_reads.is_empty(), "{} reads failed, such as {:?}", late_reads.len(), late_reads.first());
    anyhow::ensure!(late == 0, "{late} of {jobs} jobs were late");
    anyhow::ensure!(jobs > 0 && ready == 200, "{jobs} jobs, and {ready} from /readyz, prove nothing");
    let mut found = soundness::check(stage).await?;
    found.extend(counts(json!({
        "changes": changes, "reads": seen.reads, "writes": seen.writes, "jobs": jobs, "panics": panics,
        "writes_failed_at_once": seen.write_failures.len(), "writes_failed_later": 0, "jobs_late": late,
    })));
    if let Some(mut second) = second {
        second.kill().await;
    }
    server.process.kill().await;
    Ok(found)
}

/// Makes one change after the other; returns their number.
async fn change(
    stage: &Stage,
    seen: &RefCell<Seen>,
    second: &mut Option<crate::processes::Process>,
) -> anyhow::Result<usize> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tables = if stage.form == Form::Short { &TABLES[..3] } else { TABLES };
    let steps = if stage.form == Form::Short { &STEPS[1..] } else { STEPS };
    let mut changes = 0;
    for (number, table) in tables.iter().enumerate() {
        let mut statements = vec![format!("ALTER TABLE {table} ADD COLUMN added_{number} BIGINT NOT NULL DEFAULT 7")];
        if stage.form == Form::Full {
            statements.push(format!("ALTER TABLE {table} ADD COLUMN perhaps_{number} TEXT"));
            statements.push(format!("CREATE INDEX added_{number}_index ON {table} (added_{number})"));
            statements.push(format!("CREATE TABLE beside_{number} (id BIGINT PRIMARY KEY)"));
        }
        for statement in statements {
            seen.borrow_mut().changes.push(Instant::now());
            stage.execute(&statement).await?;
            changes += 1;
            tokio::time::sleep(BETWEEN_CHANGES).await;
        }
        if number == 0 && stage.setup == Setup::Full {
            let address = SocketAddr::from(([127, 0, 0, 1], programs::spare_port()));
            *second = Some(stage.serve_at("second", address, &["--workers", "1"]).await?.process);
        }
    }
    for (step, table) in steps {
        stage.execute(&format!("DROP TABLE {table}")).await?;
        stage.execute(&format!("DELETE FROM seaql_migrations WHERE version = '{step}'")).await?;
        seen.borrow_mut().changes.push(Instant::now());
        stage.pm(&["migrate", "up"]).await?;
        changes += 1;
        tokio::time::sleep(BETWEEN_CHANGES).await;
    }
    Ok(changes)
}

/// Half of the requests read, half write; every fifteenth product has an image.
async fn clients(api: &Api, seen: &RefCell<Seen>, image: &str, per_second: u32) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = FuturesUnordered::new();
    for number in 0_u64.. {
        loop {
            tokio::select! {
                // A machine that is too slow gets fewer requests, not a growing backlog.
                _ = ticks.tick(), if under_way.len() < MAX_IN_FLIGHT => break,
                Some(()) = under_way.next() => {}
            }
        }
        under_way.push(async move {
            let images = if number.is_multiple_of(60) { vec![image.to_owned()] } else { vec![] };
            let (write, outcome, good) = match number % 4 {
                0 => (true, api.post("/products", &product(&format!("changing {number}"), &images)).await, 201),
                1 => (false, api.get("/products?limit=5").await, 200),
                2 => (true, api.post("/users", &json!({"id": format!("user-{number}")})).await, 201),
                _ => (false, api.get(&format!("/products?name=changing {}", number / 4)).await, 200),
            };
            let failure = match outcome {
                Ok(answer) if answer.status == good => None,
                Ok(answer) => Some(format!("{}: {}", answer.status, answer.body)),
                Err(error) => Some(error.to_string()),
            };
            seen.borrow_mut().note(write, failure);
        });
    }
}
