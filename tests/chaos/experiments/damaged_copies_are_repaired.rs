//! P32: damaged copies are detected and repaired. One byte is flipped, or the end is cut off, in blobs and in every
//! kind of backup file, young and old: `pm doctor` and `pm backup --verify` name each one, reprocessing and the next
//! backup repair them, and `pm restore --allow-missing` restores everything undamaged.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::backup_restores_everything::Installation;
use crate::{
    images,
    ledger::{Entry, Ledger},
    measurements::counts,
    origin::Origin,
    soundness::{self, Counts},
    stage::Stage,
};

const LIMIT: Duration = Duration::from_secs(600);
/// Longer than the grace time of a blob, and than a copy counts as verified.
const LONG_AGO: Duration = Duration::from_secs(31 * 24 * 3_600);

/// The modification time of a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// The time of the damage.
    Young,
    /// A time long ago, as after silent disk corruption.
    Old,
}

#[derive(Default)]
struct Tally {
    blobs_damaged: usize,
    files_damaged: usize,
    missed: usize,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let (origin, ledger) = (Origin::start().await, Ledger::default());
    let mut server = stage.serve(&["--workers", "2"]).await?;
    for number in 0..stage.size(12_u32, 200) {
        let path = format!("/{number}.jpg");
        origin.serve(&path, "image/jpeg", images::numbered_jpeg(number, 96, 64));
        let answer = ledger.create(&server.api(), &format!("product {number}"), &[origin.url(&path)]).await?;
        anyhow::ensure!(answer.status == 201, "POST is answered {}: {}", answer.status, answer.body);
    }
    stage.settled(LIMIT).await?;
    let directory = stage.directory.join("backup");
    let backup = directory.display().to_string();
    backed_up(stage, &[&backup]).await?;
    let (mut random, mut tally) = (stage.random(1), Tally::default());
    for round in 0..stage.size(2, 20) {
        let age = if round % 2 == 0 { Age::Young } else { Age::Old };
        damage_store(stage, age, &mut random, &mut tally).await?;
        damage_backup(stage, &directory, age, &mut random, &mut tally).await?;
    }
    let mut result = restore_the_rest(stage, &directory, &ledger.entries(), &mut random).await?;
    anyhow::ensure!(tally.missed == 0, "{} damaged files were not named", tally.missed);
    result.extend(counts(json!({
        "products": ledger.entries().len(), "blobs_damaged": tally.blobs_damaged, "files_damaged": tally.files_damaged,
        "not_named": 0, "not_mended": 0,
    })));
    result.extend(soundness::check(stage).await?);
    server.process.kill().await;
    Ok(result)
}

/// Damages blobs: doctor names each one, and reprocessing repairs them.
async fn damage_store(stage: &Stage, age: Age, random: &mut fastrand::Rng, tally: &mut Tally) -> anyhow::Result<()> {
    let root = stage.directory.join("data/blobs");
    let keys = referred(stage).await?;
    let chosen = choose(&keys, stage.size(4, 20), random);
    for key in &chosen {
        damage(&root.join(key), age, random)?;
    }
    tally.blobs_damaged += chosen.len();
    let report = stage.doctor().await?;
    let examples = report["checks"].as_array().context("checks")?.iter().find(|check| check["check"] == "blobs");
    let named = examples.context("blobs")?["examples"].to_string();
    tally.missed += chosen.iter().filter(|key| !named.contains(key.as_str())).count();
    stage.pm(&["reprocess", "--status", "ready", "--yes"]).await?;
    stage.settled(LIMIT).await?;
    let report = stage.doctor().await?;
    anyhow::ensure!(report["healthy"] == true, "after reprocessing: {report}");
    Ok(())
}

/// Damages one backup file of each kind: the next backup names and repairs each one.
async fn damage_backup(
    stage: &Stage,
    directory: &Path,
    age: Age,
    random: &mut fastrand::Rng,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let backup = directory.display().to_string();
    let keys = referred(stage).await?;
    let copies = choose(&keys, stage.size(4, 20), random);
    let mut files: Vec<_> = copies.iter().map(|key| directory.join("blobs").join(key)).collect();
    files.extend(table_files(directory)?);
    files.push(directory.join("manifest.json"));
    for file in &files {
        damage(file, age, random)?;
    }
    tally.files_damaged += files.len();
    // Young files were just changed, and old ones were not verified recently: both are checked without an option.
    let words: &[&str] = if random.bool() { &[&backup] } else { &[&backup, "--verify"] };
    let named = backed_up(stage, words).await?["mended_files"].to_string();
    let name = |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let missed: Vec<_> = files.iter().map(name).filter(|name| !named.contains(name.as_str())).collect();
    anyhow::ensure!(missed.is_empty(), "{words:?} does not name {missed:?}: {named}");
    let again = backed_up(stage, &[&backup, "--verify"]).await?;
    anyhow::ensure!(again["mended"] == 0 && again["missing"] == 0, "some files are still damaged: {again}");
    Ok(())
}

/// Damage that nothing repairs: a restore refuses and names it; with `--allow-missing` it restores the rest.
async fn restore_the_rest(
    stage: &Stage,
    directory: &Path,
    before: &[Entry],
    random: &mut fastrand::Rng,
) -> anyhow::Result<Counts> {
    let backup = directory.display().to_string();
    let keys = referred(stage).await?;
    let lost = choose(&keys, stage.size(3, 30), random);
    for key in &lost {
        damage(&directory.join("blobs").join(key), Age::Young, random)?;
    }
    let tables = table_files(directory)?;
    let products = tables.iter().find(|file| file.ends_with("products.ndjson")).context("products.ndjson")?;
    flip_at(products, 20)?;
    damage(&directory.join("manifest.json"), Age::Young, random)?;
    let target = Installation::new(stage, "target", stage.setup, "32").await?;
    let refused = target.spec().arguments(["restore", &backup, "--yes"]).run(LIMIT).await?;
    let report = String::from_utf8_lossy(&refused.stderr).into_owned();
    anyhow::ensure!(
        refused.status.code() == Some(1) && report.contains("--allow-missing"),
        "the restore was not refused: {report}"
    );
    let missed: Vec<_> = lost.iter().filter(|key| !report.contains(key.as_str())).collect();
    anyhow::ensure!(missed.is_empty() && report.contains("products.ndjson"), "{missed:?} are not named: {report}");
    let words = ["restore", &backup, "--yes", "--allow-missing", "-o", "json"];
    let output = target.spec().arguments(words).run(LIMIT).await?;
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.code() == Some(4), "{}: {report}", output.status);
    let restored: Value = serde_json::from_slice(&output.stdout).context("pm restore")?;
    target.is_healthy().await?;
    let mut server = target.serve(2).await?;
    let mut gone = 0;
    for entry in before {
        let answer = target.api().get(&format!("/products/{}", entry.id)).await?;
        if answer.status == 404 {
            gone += 1;
            continue;
        }
        let product = settled(&target, entry.id).await?;
        let fields = ["user_id", "product_name", "product_price", "product_images", "created_at"];
        for field in fields {
            anyhow::ensure!(product[field] == entry.body[field], "{field} of {product} was {}", entry.body[field]);
        }
        anyhow::ensure!(product["status"] == "ready", "after the restore: {product}");
    }
    target.is_healthy().await?;
    server.kill().await;
    anyhow::ensure!(gone == 1, "one row was damaged, and {gone} products are gone");
    backed_up(stage, &[&backup]).await?;
    Ok(counts(json!({ "restored": restored, "products_lost": gone })))
}

async fn settled(target: &Installation<'_>, id: i64) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        let product = target.api().product(id).await?;
        if product["status"] != "processing" {
            return Ok(product);
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(120), "still in progress: {product}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn backed_up(stage: &Stage, words: &[&str]) -> anyhow::Result<Value> {
    let report = stage.pm(&[&["backup", "-o", "json"], words].concat()).await?;
    serde_json::from_str(&report).context("pm backup")
}

async fn referred(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let rows = stage.rows("SELECT DISTINCT blob_key FROM renditions ORDER BY blob_key").await?;
    rows.iter().map(|row| Ok(row.try_get_by_index(0)?)).collect()
}

fn choose(keys: &[String], count: usize, random: &mut fastrand::Rng) -> BTreeSet<String> {
    random.choose_multiple(keys, count).into_iter().cloned().collect()
}

/// Returns the backup's non-empty files of tables and secrets.
fn table_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("tables-") {
            continue;
        }
        for file in std::fs::read_dir(entry.path())? {
            let file = file?;
            if file.metadata()?.len() > 0 && file.file_name() != "manifest.json" {
                files.push(file.path());
            }
        }
    }
    Ok(files)
}

/// Flips a byte or cuts the end off.
fn damage(file: &Path, age: Age, random: &mut fastrand::Rng) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let place = random.usize(..bytes.len());
    if random.bool() {
        bytes[place] ^= 1 << random.u8(..8);
    } else {
        bytes.truncate(place);
    }
    let modified = std::fs::metadata(file)?.modified()?;
    std::fs::write(file, bytes)?;
    if age == Age::Old {
        let old = modified.min(SystemTime::now()) - LONG_AGO;
        std::fs::File::options().write(true).open(file)?.set_modified(old)?;
    }
    Ok(())
}

fn flip_at(file: &Path, place: usize) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(file)?;
    bytes[place] ^= 1;
    Ok(std::fs::write(file, bytes)?)
}
