//! What must hold of the data at the end of every experiment, asked of the database and the files themselves, and then of
//! `pm doctor`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::stage::{Setup, Stage};

/// What an experiment found, for its JSON line.
pub type Counts = Map<String, Value>;

/// What processes do for each other in the background is done within this.
const SETTLING: Duration = Duration::from_secs(30);

/// Checks every invariant and answers how much there is.
///
/// # Errors
/// With the first invariant that does not hold.
pub async fn check(stage: &Stage) -> anyhow::Result<Counts> {
    let ready = every_image_has_one_end(stage).await?;
    let blobs = every_rendition_has_its_blob(stage).await?;
    if stage.setup == Setup::Full {
        let told = "the cache was told of every change";
        eventually_none(stage, told, "SELECT count(*) FROM cache_invalidation").await?;
    }
    let open = "no job holds a lease or a place at some content";
    let held = "SELECT count(*) FROM jobs WHERE lease_token IS NOT NULL OR working_on IS NOT NULL";
    eventually_none(stage, open, held).await?;
    doctor_is_content(stage).await?;
    let failed = stage.number("SELECT count(*) FROM images WHERE status = 'failed'").await?;
    let counts = [("images_ready", json!(ready)), ("images_failed", json!(failed)), ("blobs", json!(blobs))];
    Ok(counts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The renditions of each picture by its source's address, as keys of content: `preset/format/key`.
///
/// # Errors
/// If the database does not answer.
pub async fn renditions(stage: &Stage) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let sql = "SELECT images.source_url, images.id, renditions.preset, renditions.format, renditions.blob_key
        FROM images LEFT JOIN renditions ON renditions.image_id = images.id
        ORDER BY images.id, renditions.preset, renditions.format";
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in stage.rows(sql).await? {
        let source: String = row.try_get_by_index(0)?;
        let image: i64 = row.try_get_by_index(1)?;
        let made = all.entry(format!("{source} of image {image}")).or_default();
        if let (Some(preset), Some(format), Some(key)) = (
            row.try_get_by_index::<Option<String>>(2)?,
            row.try_get_by_index::<Option<String>>(3)?,
            row.try_get_by_index::<Option<String>>(4)?,
        ) {
            made.push(format!("{preset}/{format}/{key}"));
        }
    }
    Ok(all)
}

async fn every_image_has_one_end(stage: &Stage) -> anyhow::Result<i64> {
    let none = [
        ("an image is neither ready nor failed", "SELECT count(*) FROM images WHERE status NOT IN ('ready', 'failed')"),
        (
            "an image failed without a reason",
            "SELECT count(*) FROM images WHERE status = 'failed' AND error_code IS NULL",
        ),
        ("a job is open", "SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'dead')"),
        (
            "an image's last job did not end as the image did",
            "SELECT count(*) FROM images JOIN jobs ON jobs.image_id = images.id AND jobs.generation = images.generation
             WHERE (images.status = 'ready') <> (jobs.state = 'done')",
        ),
        (
            "an image has no job",
            "SELECT count(*) FROM images WHERE NOT EXISTS
             (SELECT 1 FROM jobs WHERE jobs.image_id = images.id AND jobs.generation = images.generation)",
        ),
        (
            "a ready image has no renditions",
            "SELECT count(*) FROM images WHERE status = 'ready' AND NOT EXISTS
             (SELECT 1 FROM renditions WHERE renditions.image_id = images.id)",
        ),
        (
            "a product's status is not that of its images",
            "SELECT count(*) FROM products WHERE status <> CASE
               WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND images.status IN ('pending', 'processing'))
                 THEN 'processing'
               WHEN EXISTS (SELECT 1 FROM images WHERE product_id = products.id AND images.status = 'failed')
                 THEN 'failed'
               ELSE 'ready' END",
        ),
    ];
    for (what, sql) in none {
        let count = stage.number(sql).await.with_context(|| what.to_owned())?;
        anyhow::ensure!(count == 0, "{what}: {count} times");
    }
    stage.number("SELECT count(*) FROM images WHERE status = 'ready'").await
}

/// Every file that a rendition names is there and is what its name says; answers how many there are.
async fn every_rendition_has_its_blob(stage: &Stage) -> anyhow::Result<usize> {
    let rows = stage.rows("SELECT DISTINCT blob_key FROM renditions").await?;
    let directory = stage.directory.join("data/blobs");
    for row in &rows {
        let key: String = row.try_get_by_index(0)?;
        let bytes = tokio::fs::read(directory.join(&key)).await.with_context(|| format!("the blob {key}"))?;
        let name = key.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default();
        anyhow::ensure!(hex::encode(Sha256::digest(&bytes)) == name, "the blob {key} is not what its name says");
    }
    Ok(rows.len())
}

async fn eventually_none(stage: &Stage, what: &str, sql: &str) -> anyhow::Result<()> {
    let asking = async {
        while stage.number(sql).await? > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SETTLING, asking).await.with_context(|| format!("not within {SETTLING:?}: {what}"))?
}

/// An engine that has just come back may take it a moment to be content.
async fn doctor_is_content(stage: &Stage) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let told = stage.doctor().await?;
        if told["healthy"] == true {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < SETTLING, "pm doctor: {told}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
