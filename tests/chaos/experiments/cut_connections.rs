//! P27: an error is never an empty result. While connections to the database break at random, each command gives its
//! normal answer or ends with exit code 5; `serve` and `worker` start, or end with 5. On SQLite the file is locked or
//! cannot be opened instead.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    engines::wait_until,
    measurements::counts,
    soundness::{self, Counts},
    stage::{Proxies, Setup, Stage},
};

/// Exit code of a command that cannot reach its database.
const UNREACHABLE: i32 = 5;
/// A command waits 5 s for a locked database, a start 30 s.
const LIMIT: Duration = Duration::from_secs(90);

/// Commands, and whether their output is the same each time.
const COMMANDS: &[(&[&str], bool)] = &[
    (&["migrate", "status", "--output", "json"], true),
    (&["migrate", "up"], true),
    (&["product", "list", "--output", "json"], true),
    (&["product", "get", "1", "--output", "json"], true),
    (&["user", "list", "--output", "json"], true),
    (&["key", "list", "--output", "json"], true),
    (&["webhook", "list", "--output", "json"], true),
    (&["queue", "dead", "--output", "json"], true),
    (&["gc", "--dry-run", "--output", "json"], true),
    (&["doctor", "--quick", "--json"], false),
    (&["backup", "copy"], false),
];

#[derive(Default)]
struct Tally {
    runs: u64,
    answered: u64,
    unreachable: u64,
    starts: u64,
    started: u64,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let runs = stage.size(2, 200);
    fill(stage).await?;
    let mut expected = Vec::new();
    for (words, _) in COMMANDS {
        expected.push(stage.pm(words).await.with_context(|| format!("{words:?} without faults"))?);
    }
    let database = Faults::before(stage).await;
    let mut random = stage.random(27);
    let mut tally = Tally::default();
    for round in 0..runs {
        for ((words, same), expected) in COMMANDS.iter().zip(&expected) {
            let command = stage.spec("pm").arguments(*words);
            let (output, ()) = tokio::join!(command.run(LIMIT), database.happen(&mut random, round));
            let output = output?;
            tally.runs += 1;
            let (text, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            match output.status.code() {
                Some(UNREACHABLE) => tally.unreachable += 1,
                Some(0) => {
                    anyhow::ensure!(!same || text == *expected, "{words:?} printed {text} instead of {expected}");
                    tally.answered += 1;
                }
                other => anyhow::bail!("{words:?} exited with {other:?}: {text}{complaint}"),
            }
            if words[0] == "backup" && output.status.success() {
                is_whole(&stage.directory.join("copy"))?;
            }
        }
        start(stage, "serve", &database, &mut random, round, &mut tally).await?;
        start(stage, "worker", &database, &mut random, round, &mut tally).await?;
    }
    anyhow::ensure!(
        tally.unreachable > 0 && tally.answered > 0,
        "no mix of successes and failures, so nothing is proved"
    );
    // A second server sends the invalidations that were pending when the first one stopped.
    let mut server = stage.serve(&["--no-worker"]).await?;
    let mut found = soundness::check(stage).await?;
    server.process.kill().await;
    drop(database);
    found.extend(counts(json!({
        "runs": tally.runs, "answered": tally.answered, "exit_5": tally.unreachable,
        "starts": tally.starts, "started": tally.started, "wrong_states": 0,
    })));
    Ok(found)
}

/// Creates pending changes.
async fn fill(stage: &Stage) -> anyhow::Result<()> {
    let mut server = stage.serve(&["--no-worker"]).await?;
    for number in 0..3 {
        server.api().create(&format!("product {number}"), &[]).await?;
    }
    if stage.setup == Setup::Full {
        // Else `pm doctor` reports changes that no process sends to the cache.
        wait_until("all cache invalidations are sent", LIMIT, async || {
            stage.number("SELECT count(*) FROM cache_invalidation").await.is_ok_and(|left| left == 0)
        })
        .await?;
    }
    server.process.terminate();
    server.process.ended(LIMIT).await?;
    Ok(())
}

/// Returns whether a backup is complete.
fn is_whole(directory: &Path) -> anyhow::Result<()> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(directory.join("manifest.json"))?)?;
    let steps = manifest["schema"].as_array().map_or(0, Vec::len);
    let products = manifest["tables"].as_array().into_iter().flatten().find(|table| table["name"] == "products");
    let rows = products.map(|table| table["rows"].clone());
    anyhow::ensure!(steps >= 15 && rows == Some(json!(3)), "a backup of {steps} steps and {rows:?} products");
    Ok(())
}

/// Starts a long-running command; it works in the end, or exits with 5.
async fn start(
    stage: &Stage,
    command: &str,
    database: &Faults<'_>,
    random: &mut fastrand::Rng,
    round: u64,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let words = if command == "serve" { &["serve", "--no-worker"][..] } else { &["worker", "--concurrency", "1"][..] };
    let mut process = stage.spec(command).arguments(words).spawn()?;
    let begun = async {
        loop {
            let text = process.output();
            if text.contains("\"serving\"") || text.contains("working on images") || !process.is_running() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (begun, ()) = tokio::join!(tokio::time::timeout(LIMIT, begun), database.happen(random, round));
    tally.starts += 1;
    anyhow::ensure!(begun.is_ok(), "{command} neither starts nor ends: {}", process.output());
    if process.is_running() {
        tally.started += 1;
        process.terminate();
        process.ended(LIMIT).await?;
    } else {
        let status = process.ended(LIMIT).await?;
        anyhow::ensure!(status.code() == Some(UNREACHABLE), "{command} exited with {status}: {}", process.output());
    }
    Ok(())
}

/// A database fault while a command runs.
enum Faults<'a> {
    /// A proxy resets connections to PostgreSQL.
    Cut(Proxies),
    /// SQLite's file is locked or replaced by something else.
    File(&'a Path),
}

impl<'a> Faults<'a> {
    async fn before(stage: &'a Stage) -> Self {
        match stage.setup {
            Setup::Full => Self::Cut(stage.put_proxies().await),
            Setup::Embedded => Self::File(&stage.directory),
        }
    }

    /// Injects one fault at a random moment, for a random time; the fault is over when this returns.
    async fn happen(&self, random: &mut fastrand::Rng, round: u64) {
        let begins = Duration::from_millis(random.u64(0..400));
        let lasts = Duration::from_millis(random.u64(10..600));
        match self {
            Self::Cut(Proxies { postgres, .. }) => {
                tokio::time::sleep(begins).await;
                if round.is_multiple_of(2) {
                    postgres.cut()
                } else {
                    postgres.reset()
                }
                tokio::time::sleep(lasts).await;
                postgres.restore();
            }
            Self::File(directory) if round.is_multiple_of(2) => {
                tokio::time::sleep(begins).await;
                // Sometimes longer than a command waits.
                let lasts = if random.u8(..20) == 0 { Duration::from_millis(7_000) } else { lasts };
                lock(directory.join("data/pm.db"), lasts).await;
            }
            Self::File(directory) => {
                let (file, aside) = (directory.join("data/pm.db"), directory.join("aside.db"));
                tokio::time::sleep(begins / 4).await;
                std::fs::rename(&file, &aside).expect("the database file exists");
                std::fs::create_dir(&file).expect("its path is unused");
                tokio::time::sleep(lasts).await;
                std::fs::remove_dir(&file).expect("no other process writes to the directory");
                std::fs::rename(&aside, &file).expect("its path is unused again");
            }
        }
    }
}

/// Locks the file against reads and writes if no process has it open, else against writes.
async fn lock(file: std::path::PathBuf, lasts: Duration) {
    let locking = tokio::task::spawn_blocking(move || {
        let connection = rusqlite::Connection::open(file).ok()?;
        // A process that has the file open prevents the lock; then the run has no fault.
        let _ = connection.busy_timeout(Duration::from_millis(200));
        let _ = connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; ");
        Some(connection)
    });
    let Ok(Some(connection)) = locking.await else { return };
    tokio::time::sleep(lasts).await;
    let _ = tokio::task::spawn_blocking(move || connection.execute_batch("ROLLBACK")).await;
}
