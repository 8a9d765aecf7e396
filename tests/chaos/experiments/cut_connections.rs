//! P27: an error is never an empty answer. While connections to the database break off at random, each command either answers
//! what it answers without that, or ends with exit code 5; `serve` and `worker` start, or end with 5. On SQLite the file is
//! locked or cannot be opened instead.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    figures::counts,
    soundness::{self, Counts},
    stage::{Proxies, Setup, Stage},
};

/// What a command that cannot reach its database ends with.
const UNREACHABLE: i32 = 5;
/// A command waits for a locked database for 5 s, a start for 30 s.
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
            let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            match output.status.code() {
                Some(UNREACHABLE) => tally.unreachable += 1,
                Some(0) => {
                    anyhow::ensure!(!same || told == *expected, "{words:?} tells {told} in place of {expected}");
                    tally.answered += 1;
                }
                other => anyhow::bail!("{words:?} ends with {other:?}: {told}{complaint}"),
            }
            if words[0] == "backup" && output.status.success() {
                is_whole(&stage.directory.join("copy"))?;
            }
        }
        start(stage, "serve", &database, &mut random, round, &mut tally).await?;
        start(stage, "worker", &database, &mut random, round, &mut tally).await?;
    }
    anyhow::ensure!(tally.unreachable > 0 && tally.answered > 0, "with no mixture nothing is shown");
    // What was not told to the cache when the first server stopped is told by another one.
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

/// Something to be told of.
async fn fill(stage: &Stage) -> anyhow::Result<()> {
    let mut server = stage.serve(&["--no-worker"]).await?;
    for number in 0..3 {
        server.api().create(&format!("product {number}"), &[]).await?;
    }
    server.process.terminate();
    server.process.ended(LIMIT).await?;
    Ok(())
}

/// Whether a backup says what it holds.
fn is_whole(directory: &Path) -> anyhow::Result<()> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(directory.join("manifest.json"))?)?;
    let steps = manifest["schema"].as_array().map_or(0, Vec::len);
    let products = manifest["tables"].as_array().into_iter().flatten().find(|table| table["name"] == "products");
    let rows = products.map(|table| table["rows"].clone());
    anyhow::ensure!(steps >= 15 && rows == Some(json!(3)), "a backup of {steps} steps and {rows:?} products");
    Ok(())
}

/// Starts a program that goes on running; it works in the end, or ends with 5.
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
            let told = process.output();
            if told.contains("\"serving\"") || told.contains("working on pictures") || !process.is_running() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (begun, ()) = tokio::join!(tokio::time::timeout(LIMIT, begun), database.happen(random, round));
    tally.starts += 1;
    anyhow::ensure!(begun.is_ok(), "{command} neither begins nor ends: {}", process.output());
    if process.is_running() {
        tally.started += 1;
        process.terminate();
        process.ended(LIMIT).await?;
    } else {
        let status = process.ended(LIMIT).await?;
        anyhow::ensure!(status.code() == Some(UNREACHABLE), "{command} ends with {status}: {}", process.output());
    }
    Ok(())
}

/// What happens to the database while a command runs.
enum Faults<'a> {
    /// A proxy before PostgreSQL cuts connections off.
    Cut(Proxies),
    /// SQLite's file is locked, or something else is in its place.
    File(&'a Path),
}

impl<'a> Faults<'a> {
    async fn before(stage: &'a Stage) -> Self {
        match stage.setup {
            Setup::Full => Self::Cut(stage.put_proxies().await),
            Setup::Embedded => Self::File(&stage.directory),
        }
    }

    /// One fault at a random moment, for a random time; over when this ends.
    async fn happen(&self, random: &mut fastrand::Rng, round: u64) {
        let begins = Duration::from_millis(random.u64(0..400));
        let lasts = Duration::from_millis(random.u64(10..1_500));
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
                // Longer than a command waits for it, now and then.
                let lasts = if random.u8(..4) == 0 { Duration::from_millis(7_000) } else { lasts };
                lock(directory.join("data/pm.db"), lasts).await;
            }
            Self::File(directory) => {
                let (file, aside) = (directory.join("data/pm.db"), directory.join("aside.db"));
                tokio::time::sleep(begins / 4).await;
                std::fs::rename(&file, &aside).expect("the database is there");
                std::fs::create_dir(&file).expect("its place is free");
                tokio::time::sleep(lasts).await;
                std::fs::remove_dir(&file).expect("nobody puts anything into it");
                std::fs::rename(&aside, &file).expect("its place is free again");
            }
        }
    }
}

/// Keeps everybody from reading and writing, if nobody has the file open at this moment; else from writing.
async fn lock(file: std::path::PathBuf, lasts: Duration) {
    let locking = tokio::task::spawn_blocking(move || {
        let connection = rusqlite::Connection::open(file).ok()?;
        // Whoever has the file open keeps it from being locked; that is a run without a fault.
        let _ = connection.busy_timeout(Duration::from_millis(200));
        let _ = connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; ");
        Some(connection)
    });
    let Ok(Some(connection)) = locking.await else { return };
    tokio::time::sleep(lasts).await;
    let _ = tokio::task::spawn_blocking(move || connection.execute_batch("ROLLBACK")).await;
}
