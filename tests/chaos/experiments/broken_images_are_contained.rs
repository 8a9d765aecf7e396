//! P12: no image harms a worker. Every file of the directories in `PM_CORPUS`, or images broken by code, go through a
//! real worker: each becomes ready or fails with a code of docs/ERRORS.md, in time, and the worker survives within its
//! memory limit.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    inputs::{self, broken},
    measurements::{Times, counts, milliseconds},
    origin::Origin,
    processes::{Process, tree},
    soundness::{self, Counts},
    stage::Stage,
};

const DECODERS: usize = 2;
/// Time limit of one image. A debug build is many times slower than a release build.
const LIMIT: Duration = if cfg!(debug_assertions) { Duration::from_secs(60) } else { Duration::from_secs(10) };
/// Memory limit: the decoders' budget, eight downloads, and the program itself.
const MAX_MEMORY_BYTES: u64 = (512 + 8 * 32 + 128) << 20;
const CODES: &str = include_str!("../../../docs/ERRORS.md");

/// A file's name and bytes.
type File = (String, Vec<u8>);

/// The outcome of one file.
struct Outcome {
    name: String,
    bytes: usize,
    status: String,
    code: String,
    took: Duration,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (given, files) = files(stage).await?;
    let origin = Origin::start().await;
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut worker = stage.worker("worker", DECODERS).await?;
    let memory = watch_memory(worker.pid());
    let mut products = BTreeMap::new();
    for (number, (name, bytes)) in files.iter().enumerate() {
        let path = format!("/{number}");
        origin.serve(&path, "application/octet-stream", bytes.clone());
        let made = server.api().create(name, &[origin.url(&path)]).await?;
        products.insert(made["id"].as_i64().context("a number")?, (name.clone(), bytes.len()));
    }
    stage.settled(Duration::from_secs(60) + LIMIT * u32::try_from(files.len() / DECODERS)?).await?;
    anyhow::ensure!(worker.is_running(), "the worker has ended: {}", worker.output());
    let exits = worker.output().matches("working on images").count() - 1;
    let times = logged_times(&worker, products.len()).await;
    let outcomes = outcomes(stage, &products, &times).await?;
    let peak = memory.load(Relaxed);
    write_table(&outcomes)?;
    let mut counts = summary(&outcomes, given);
    counts.insert("worker_exits".to_owned(), json!(exits));
    counts.insert("peak_memory_mib".to_owned(), json!(peak >> 20));
    judge(&outcomes).with_context(|| format!("{counts:?}"))?;
    anyhow::ensure!(peak <= MAX_MEMORY_BYTES, "the worker and its children used {} MiB", peak >> 20);
    counts.extend(soundness::check(stage).await?);
    worker.kill().await;
    server.process.kill().await;
    Ok(counts)
}

/// Returns the files by name, and whether they come from `PM_CORPUS`; the short form takes some of them.
async fn files(stage: &Stage) -> anyhow::Result<(bool, Vec<File>)> {
    let Some(corpus) = std::env::var_os("PM_CORPUS").map(PathBuf::from) else {
        let (mut random, sizes) = (stage.random(1), (stage.size(60, 2_000), stage.size(1_500, 7_000)));
        // Drawing takes seconds, and would delay the clients of other experiments.
        let drawn = tokio::task::spawn_blocking(move || broken::images(&mut random, sizes)).await?;
        return Ok((false, drawn));
    };
    let mut paths = Vec::new();
    for directory in ["edge", "broken"] {
        collect(&corpus.join(directory), &mut paths)?;
    }
    paths.sort_unstable();
    stage.random(2).shuffle(&mut paths);
    paths.truncate(stage.size(40, usize::MAX));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&corpus).unwrap_or(&path).display().to_string();
        Ok((name, std::fs::read(&path)?))
    };
    Ok((true, paths.into_iter().map(read).collect::<anyhow::Result<_>>()?))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("PM_CORPUS: {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() { collect(&entry.path(), files)? } else { files.push(entry.path()) }
    }
    Ok(())
}

/// Samples the memory of the process and its children every few milliseconds; returns the maximum.
fn watch_memory(pid: u32) -> Arc<AtomicU64> {
    let peak = Arc::new(AtomicU64::new(0));
    let noted = peak.clone();
    tokio::spawn(async move {
        while tree::is_alive(pid) {
            let all = tree::family(pid).into_iter().map(resident_bytes).sum();
            noted.fetch_max(all, Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
    });
    peak
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Reads each product's processing time from the worker's log, once it has `number` lines. A line follows the commit of
/// the result.
async fn logged_times(worker: &Process, number: usize) -> BTreeMap<i64, Duration> {
    let began = Instant::now();
    loop {
        let times = times_in(&worker.output());
        if times.len() >= number || began.elapsed() > Duration::from_secs(10) {
            return times;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn times_in(log: &str) -> BTreeMap<i64, Duration> {
    let mut times: BTreeMap<i64, Duration> = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let field = |name: &str| line[name].as_u64();
        let product = line["product.id"].as_i64();
        if let (Some(product), Some(took)) = (product, field("duration_ms")) {
            // Waiting for memory or a core is not part of the image's time.
            let own = Duration::from_millis(took.saturating_sub(field("wait_ms").unwrap_or(0)));
            let longest = times.entry(product).or_default();
            *longest = own.max(*longest);
        }
    }
    times
}

/// Reads each outcome from the database.
async fn outcomes(
    stage: &Stage,
    products: &BTreeMap<i64, (String, usize)>,
    times: &BTreeMap<i64, Duration>,
) -> anyhow::Result<Vec<Outcome>> {
    let rows =
        stage.rows("SELECT product_id, status, coalesce(error_code, '') FROM images ORDER BY product_id").await?;
    let outcome = |row: &sea_orm::QueryResult| {
        let (id, status, code): (i64, String, String) = row.try_get_many_by_index()?;
        let (name, bytes) = products.get(&id).context("a product of another experiment")?.clone();
        let took = *times.get(&id).with_context(|| format!("the log has no duration for {name}"))?;
        Ok(Outcome { name, bytes, status, code, took })
    };
    rows.iter().map(outcome).collect()
}

fn judge(outcomes: &[Outcome]) -> anyhow::Result<()> {
    for Outcome { name, status, code, took, .. } in outcomes {
        let listed = code.is_empty() || CODES.contains(&format!("| `{code}` |"));
        let ended = (status == "ready" && code.is_empty()) || (status == "failed" && listed && !code.is_empty());
        anyhow::ensure!(ended, "{name} ended as {status} {code:?}");
        anyhow::ensure!(code != "internal" && code != "poison", "{name} caused an internal error: {code}");
        anyhow::ensure!(*took <= LIMIT, "{name} took {took:?}");
    }
    Ok(())
}

fn summary(outcomes: &[Outcome], given: bool) -> Counts {
    let mut times = Times::default();
    outcomes.iter().for_each(|outcome| times.note(outcome.took));
    let slowest = outcomes.iter().max_by_key(|outcome| outcome.took).map(|outcome| outcome.name.as_str());
    let mut by_code: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes {
        *by_code.entry(if outcome.code.is_empty() { "ready" } else { &outcome.code }).or_default() += 1;
    }
    counts(json!({
        "files": outcomes.len(), "files_given": given, "ends": by_code,
        "slowest_ms": milliseconds(times.longest()), "slowest": slowest,
    }))
}

fn write_table(outcomes: &[Outcome]) -> anyhow::Result<()> {
    let Some(path) = inputs::TABLE.get() else { return Ok(()) };
    let mut table = "file\tbytes\tstatus\tcode\tmilliseconds\n".to_owned();
    for Outcome { name, bytes, status, code, took } in outcomes {
        writeln!(table, "{name}\t{bytes}\t{status}\t{code}\t{}", took.as_millis())?;
    }
    std::fs::write(path, table).with_context(|| format!("writing {}", path.display()))
}
