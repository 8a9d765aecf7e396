//! P17: a full disk is survived. The program's files are on a disk of 8 MiB that fills up and is emptied again:
//! requests are refused with clear problems meanwhile, no acknowledged write is lost, and all work resumes by itself.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    api::Api,
    images,
    ledger::Ledger,
    measurements::{Times, counts, milliseconds},
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
    wrapped,
};

const DISK: &str = "8m";

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let rounds = stage.size(1, 3);
    let origin = Origin::start().await;
    let data = stage.directory.join("data");
    let mount = format!("mount -t tmpfs -o size={DISK},mode=0755 full {} && exec \"$@\"", data.display());
    let Some(words) = wrapped::unshare(stage, &["--mount"]).await? else { return Ok(wrapped::skipped()) };
    let mut unshare = vec!["unshare"];
    unshare.extend(words);
    unshare.extend(["sh", "-c", &mount, "sh"]);
    let mut server = wrapped::serve(stage, "on-a-small-disk", &unshare, &["--workers", "2"]).await?;
    // The disk is mounted in the server's own mount namespace, reached through its pid.
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.process.pid(), data.display()));
    let (api, ledger) = (server.api(), Ledger::default());
    let (mut refused, mut resumed) = (0, Times::default());
    for round in 0..rounds {
        create(&ledger, &api, &origin, (round, 0..3)).await?;
        settled(&api).await?;
        fill(&inside.join("filler")).await?;
        refused += when_full(&ledger, &api, &origin, round).await?;
        std::fs::remove_file(inside.join("filler")).context("making room")?;
        let room = Instant::now();
        create(&ledger, &api, &origin, (round, 100..103)).await.context("with room again")?;
        resumed.note(room.elapsed());
        settled(&api).await?;
    }
    anyhow::ensure!(server.process.is_running(), "the server has ended");
    anyhow::ensure!(refused > 0, "nothing was refused, so the disk was not full");
    copy(&inside, &data)?;
    ledger.audit(stage, &api).await?.is_clean()?;
    let mut counts = counts(json!({
        "rounds": rounds, "refused": refused, "acknowledged": ledger.entries().len(), "missing": 0,
        "taken_again_within_ms": milliseconds(resumed.longest()),
    }));
    counts.extend(soundness::check(stage).await?);
    server.process.kill().await;
    Ok(counts)
}

fn image(origin: &Origin, number: usize) -> String {
    let path = format!("/{number}.jpg");
    origin.serve(&path, "image/jpeg", images::numbered_jpeg(u32::try_from(number).unwrap_or(0), 160, 120));
    origin.url(&path)
}

/// Creates products, which must succeed within a few seconds: the first may still meet the full disk.
async fn create(
    ledger: &Ledger,
    api: &Api,
    origin: &Origin,
    (round, numbers): (usize, std::ops::Range<usize>),
) -> anyhow::Result<()> {
    for number in numbers {
        let began = Instant::now();
        for attempt in 0.. {
            let name = format!("round {round} product {number} attempt {attempt}");
            let answer = ledger.create(api, &name, &[image(origin, round * 1_000 + number)]).await?;
            if answer.status == 201 {
                break;
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(10), "{}: {}", answer.status, answer.body);
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Fills the disk to its last byte, until no write succeeds.
async fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path).context("the small disk")?;
    let mut piece = vec![1; 64 << 10];
    loop {
        match file.write(&piece) {
            Ok(written) if written > 0 => {}
            _ if piece.len() > 1 => piece.truncate(piece.len() / 2),
            _ => return Ok(()),
        }
    }
}

/// Checks that writes are refused and reads succeed; returns the number of refused writes.
async fn when_full(ledger: &Ledger, api: &Api, origin: &Origin, round: usize) -> anyhow::Result<usize> {
    let mut refused = 0;
    for number in 10..40 {
        let images: Vec<_> = (0..8).map(|offset| image(origin, round * 1_000 + number * 10 + offset)).collect();
        let answer = ledger.create(api, &format!("round {round} full {number}"), &images).await?;
        match answer.status {
            201 => {}
            507 | 503 => {
                refused += 1;
                let code = answer.body["code"].as_str().unwrap_or_default();
                anyhow::ensure!(["storage_full", "unavailable"].contains(&code), "{}", answer.body);
            }
            other => anyhow::bail!("on a full disk POST /products answers {other}: {}", answer.body),
        }
        let known = ledger.entries();
        let entry = &known[number % known.len()];
        let read = api.get(&format!("/products/{}", entry.id)).await?;
        anyhow::ensure!(read.status == 200, "on a full disk GET answers {}: {}", read.status, read.body);
    }
    Ok(refused)
}

/// Waits until no product is in progress; a store that was full is retried after some seconds.
async fn settled(api: &Api) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let open = api.get("/products?status=processing&limit=100").await?;
        if open.status == 200 && open.body["items"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(150), "still in progress: {}", open.body);
        sleep(Duration::from_millis(100)).await;
    }
    let failed: Value = api.get("/products?status=failed").await?.body;
    anyhow::ensure!(
        failed["items"].as_array().is_some_and(Vec::is_empty),
        "images failed because of the full disk: {failed}"
    );
    Ok(())
}

/// Copies the files from the small disk, which vanishes with the server, to where the checks look.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    // The directory itself stays: removing it would unmount the server's disk.
    for entry in std::fs::read_dir(to)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?
        } else {
            std::fs::remove_file(entry.path())?
        }
    }
    copy_all(from, to).context("copying the small disk")
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (entry, to) = (entry?, to.to_owned());
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
