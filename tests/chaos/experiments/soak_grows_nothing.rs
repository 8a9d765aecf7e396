//! P34: resources do not grow over time. A soak of mixed load: products are created, read, listed, searched, changed
//! and deleted, files are uploaded, events are followed, invalid requests are sent. Memory, descriptors, threads and
//! connections of each process must level off, and no zombie may remain. The full form takes an hour and compares its
//! end with its fifth minute; the short one takes a minute and shows only that the soak works and nothing grows fast.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    api::Api,
    images,
    measurements::counts,
    origin::Origin,
    processes::{
        Process, tree,
        usage::{Usage, connections_to},
    },
    soundness::Counts,
    stage::{Form, Setup, Stage},
};

mod load;

/// Length of a full soak in minutes, if given on the command line.
pub static MINUTES: OnceLock<u64> = OnceLock::new();

/// Number of clients that send one request after the other.
const CLIENTS: u64 = 8;
/// Number of different images of products.
const IMAGES: u32 = 50;
/// Interval of the samples of a full soak.
const SAMPLE_EVERY: Duration = Duration::from_secs(30);

/// Number of samples whose median is a level.
const JUDGED_SAMPLES: usize = 3;

/// The bounds of one form.
struct Bounds {
    lasts: Duration,
    sample_every: Duration,
    /// The time whose nearest samples the end is compared with.
    level_at: Duration,
    /// Allowed growth of memory: a share, and KiB.
    growth: (f64, u64),
    /// Allowed growth of descriptors, threads and connections.
    more: u64,
}

/// One sample.
struct Sample {
    at: Duration,
    /// By the process's name.
    processes: Vec<(&'static str, Usage)>,
    zombies: usize,
    database_connections: Option<u64>,
    broker_connections: Option<u64>,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let bounds = bounds(stage.form);
    let origin = Origin::start().await;
    for number in 0..IMAGES {
        origin.serve(&format!("/{number}.jpg"), "image/jpeg", images::numbered_jpeg(number, 160, 120));
    }
    let mut server =
        stage.serve(if stage.setup == Setup::Full { &["--no-worker"] } else { &["--workers", "2"] }).await?;
    let mut worker = match stage.setup {
        Setup::Full => Some(stage.worker("worker", 2).await?),
        Setup::Embedded => None,
    };
    let api = server.api();
    let products = load::Products::default();
    let requests = AtomicU64::new(0);
    let until = Instant::now() + bounds.lasts;
    let clients = join_all((0..CLIENTS).map(|number| {
        let client = load::Client::new(&api, &origin, &products, stage.random(number));
        client.work(until, &requests)
    }));
    let watching = watch(stage, (&server.process, worker.as_ref()), &api, &requests, &bounds);
    let (sent, samples) = tokio::join!(clients, watching);
    sent.into_iter().collect::<anyhow::Result<()>>()?;
    let samples = samples?;
    anyhow::ensure!(server.process.is_running(), "the server has ended");
    let verdict = judge(&samples, &bounds)?;
    if let Some(worker) = &mut worker {
        anyhow::ensure!(worker.is_running(), "the worker has ended");
        worker.kill().await;
    }
    server.process.kill().await;
    let mut all = counts(json!({
        "minutes": bounds.lasts.as_secs_f64() / 60.0, "requests": requests.load(Ordering::Relaxed), "zombies": 0,
    }));
    all.extend(verdict);
    Ok(all)
}

fn bounds(form: Form) -> Bounds {
    let seconds = Duration::from_secs;
    match form {
        Form::Short => Bounds {
            lasts: seconds(60),
            sample_every: seconds(5),
            level_at: seconds(32),
            growth: (1.5, 16 * 1024),
            more: 24,
        },
        Form::Full => {
            let lasts = Duration::from_secs(60 * MINUTES.get().copied().unwrap_or(60).max(10));
            Bounds { lasts, sample_every: SAMPLE_EVERY, level_at: seconds(300), growth: (1.2, 0), more: 16 }
        }
    }
}

/// Takes samples until the soak is over; prints those of a full form.
async fn watch(
    stage: &Stage,
    (server, worker): (&Process, Option<&Process>),
    api: &Api,
    requests: &AtomicU64,
    bounds: &Bounds,
) -> anyhow::Result<Vec<Sample>> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    loop {
        tokio::time::sleep(bounds.sample_every).await;
        let sample = sample(stage, (server, worker), begun.elapsed()).await?;
        let line = sample.line(stage, requests.load(Ordering::Relaxed));
        // Only a full form prints its own lines among the results.
        if stage.form == Form::Full {
            println!("{line}")
        } else {
            eprintln!("chaos: {line}")
        }
        samples.push(sample);
        if begun.elapsed() + bounds.sample_every > bounds.lasts {
            let alive = api.get("/healthz").await.is_ok_and(|answer| answer.status == 200);
            anyhow::ensure!(alive, "the server does not answer at the end");
            return Ok(samples);
        }
    }
}

async fn sample(stage: &Stage, (server, worker): (&Process, Option<&Process>), at: Duration) -> anyhow::Result<Sample> {
    let mut processes = vec![("serve", Usage::of(server.pid()).context("the server has ended")?)];
    if let Some(worker) = worker {
        processes.push(("worker", Usage::of(worker.pid()).context("the worker has ended")?));
    }
    let roots = [Some(server), worker];
    let family: Vec<u32> = roots.into_iter().flatten().flat_map(|process| tree::family(process.pid())).collect();
    let children = family.iter().filter(|pid| roots.iter().flatten().all(|root| root.pid() != **pid));
    let decoders = children.filter_map(|pid| Usage::of(*pid)).fold(Usage::default(), Usage::plus);
    processes.push(("decoders", decoders));
    // A zombie that is about to be reaped may appear in one sample.
    let ended: Vec<u32> = family.into_iter().filter(|pid| tree::is_zombie(*pid)).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let zombies = ended.into_iter().filter(|pid| tree::is_zombie(*pid)).count();
    let (mut database_connections, mut broker_connections) = (None, None);
    if stage.setup == Setup::Full {
        let of_ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
        database_connections = Some(stage.number(of_ours).await?.unsigned_abs());
        let port = stage.engines().rabbitmq.address().port();
        let pids: Vec<u32> = roots.iter().flatten().map(|process| process.pid()).collect();
        broker_connections = Some(connections_to(port, &pids));
    }
    Ok(Sample { at, processes, zombies, database_connections, broker_connections })
}

impl Sample {
    fn line(&self, stage: &Stage, requests: u64) -> Value {
        let processes: serde_json::Map<String, Value> = self
            .processes
            .iter()
            .map(|(name, usage)| {
                let usage = json!({
                    "rss_mib": mib(usage.rss_kib), "own_mib": mib(usage.own_kib), "descriptors": usage.descriptors,
                    "threads": usage.threads,
                });
                ((*name).to_owned(), usage)
            })
            .collect();
        json!({
            "soak": "P34", "setup": stage.setup.letter(), "seconds": self.at.as_secs(), "requests": requests,
            "processes": processes, "zombies": self.zombies, "database_connections": self.database_connections,
            "broker_connections": self.broker_connections,
        })
    }
}

fn mib(kib: u64) -> f64 {
    (kib as f64 / 102.4).round() / 10.0
}

/// A measurement that must be level: its name, its location, and whether it is memory.
type Metric = (String, Read, bool);

/// Returns the measurement from a sample, if present.
type Read = Box<dyn Fn(&Sample) -> Option<u64>>;

/// Returns every measurement of these processes. Decoders come and go with their images, so they do not count.
fn metrics(processes: &[(&'static str, Usage)]) -> Vec<Metric> {
    let mut all: Vec<Metric> = vec![
        ("database_connections".to_owned(), Box::new(|sample| sample.database_connections), false),
        ("broker_connections".to_owned(), Box::new(|sample| sample.broker_connections), false),
    ];
    for (place, (name, _)) in processes.iter().enumerate().filter(|(_, (name, _))| *name != "decoders") {
        let of = |metric: fn(&Usage) -> u64| -> Read {
            Box::new(move |sample| sample.processes.get(place).map(|(_, usage)| metric(usage)))
        };
        all.push((format!("{name}_rss_kib"), of(|usage| usage.rss_kib), true));
        all.push((format!("{name}_descriptors"), of(|usage| usage.descriptors), false));
        all.push((format!("{name}_threads"), of(|usage| usage.threads), false));
    }
    all
}

/// Compares the end with the level.
fn judge(samples: &[Sample], bounds: &Bounds) -> anyhow::Result<Counts> {
    let mut level: Vec<&Sample> = samples.iter().collect();
    level.sort_by_key(|sample| sample.at.abs_diff(bounds.level_at));
    level.truncate(JUDGED_SAMPLES);
    let end: Vec<&Sample> = samples.iter().rev().take(JUDGED_SAMPLES).collect();
    anyhow::ensure!(samples.len() > 2 * JUDGED_SAMPLES, "the soak was too short for a result");
    let (mut found, mut grown) = (Counts::new(), Vec::new());
    for (name, metric, is_memory) in metrics(&samples[0].processes) {
        let (Some(before), Some(after)) = (median(&level, &metric), median(&end, &metric)) else { continue };
        let most =
            if is_memory { (before as f64 * bounds.growth.0) as u64 + bounds.growth.1 } else { before + bounds.more };
        if after > most {
            grown.push(format!("{name}: {before}, then {after}"));
        }
        found.insert(name, json!([before, after]));
    }
    let zombies = samples.iter().map(|sample| sample.zombies).max().unwrap_or_default();
    anyhow::ensure!(zombies == 0, "{zombies} zombies");
    anyhow::ensure!(grown.is_empty(), "still growing: {}; {found:?}", grown.join("; "));
    Ok(found)
}

/// Returns the median of the samples that have a value.
fn median(samples: &[&Sample], metric: impl Fn(&Sample) -> Option<u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = samples.iter().filter_map(|sample| metric(sample)).collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}
