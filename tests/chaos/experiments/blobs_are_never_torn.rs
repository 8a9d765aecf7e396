//! P18: no torn blob. A process that only stores blobs is killed at random moments. Every file with a blob's name is
//! complete, and partial files are recognized and removed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use pm::blobs::{BlobKey, Blobs, Engine};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use crate::{measurements::counts, parts::Part, soundness::Counts, stage::Stage};

/// The writer's store.
const DIRECTORY: &str = "CHAOS_BLOBS";
/// The line in which the writer reports a stored blob.
const STORED: &str = "stored ";

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let kills = stage.size(40, 1_000);
    let directory = stage.directory.join("torn");
    let mut random = stage.random(1);
    let writer = Part::Writer.spec(stage, "writer")?.variable(DIRECTORY, directory.display().to_string());
    for _ in 0..kills {
        let mut process = writer.spawn()?;
        let before = process.output().len();
        // The first blob may take a while; from then on a write is always in progress.
        while process.output().len() == before {
            anyhow::ensure!(process.is_running(), "the writer has ended: {}", process.output());
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_micros(random.u64(..30_000))).await;
        process.kill().await;
    }
    let printed = std::fs::read_to_string(writer.log())?;
    let (mut files, mut unfinished) = (0, 0);
    for path in walk(&directory)? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
        if name.contains('#') {
            unfinished += 1;
            continue;
        }
        files += 1;
        let hash = name.split('.').next().unwrap_or_default();
        let bytes = std::fs::read(&path)?;
        anyhow::ensure!(hex::encode(Sha256::digest(&bytes)) == hash, "torn blob: {} of {} bytes", name, bytes.len());
    }
    // A killed writer may leave a partial last line, and the next writer's first line follows it.
    let whole =
        printed.lines().filter_map(|line| line.strip_prefix(STORED)).filter(|key| BlobKey::parse(key).is_some());
    let acknowledged: Vec<_> = whole.collect();
    let missing = acknowledged.iter().filter(|key| !directory.join(key).exists()).count();
    anyhow::ensure!(missing == 0, "{missing} acknowledged blobs are missing");
    let blobs = Blobs::connect(&Engine::Disk { directory: directory.clone() }).await?;
    let removed = blobs.remove_unfinished(Duration::ZERO).await?;
    let left = walk(&directory)?.iter().filter(|path| path.to_string_lossy().contains('#')).count();
    anyhow::ensure!(left == 0, "{left} partial files are left after {removed} of {unfinished} were removed");
    Ok(counts(json!({
        "kills": kills, "blobs": files, "acknowledged": acknowledged.len(), "torn": 0, "half_files_left": unfinished,
    })))
}

fn walk(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { files.extend(walk(&entry.path())?) } else { files.push(entry.path()) }
    }
    Ok(files)
}

/// The writer: stores blobs of all sizes, four at a time, until it is killed.
pub async fn write() -> anyhow::Result<()> {
    use std::io::Write as _;

    let directory = std::env::var_os(DIRECTORY).context("no directory")?.into();
    let blobs = Blobs::connect(&Engine::Disk { directory }).await?;
    let lane = |blobs: Blobs| async move {
        let mut random = fastrand::Rng::new();
        loop {
            let mut bytes = vec![0; random.usize(1..200_000)];
            random.fill(&mut bytes);
            let key = blobs.put(bytes.into(), "jpg").await?;
            // One write for each line, so that lines of parallel lanes never mix.
            std::io::stdout().write_all(format!("{STORED}{key}\n").as_bytes())?;
            std::io::stdout().flush()?;
        }
    };
    let lanes = (0..4).map(|_| lane(blobs.clone()));
    let ended: anyhow::Result<Vec<()>> = futures_util::future::try_join_all(lanes).await;
    ended.map(|_| ())
}
