//! Invariants of the data after every experiment, checked in the database, in the files, and by `pm doctor`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::stage::{Setup, Stage};

/// Results of an experiment, for its JSON line.
pub type Counts = Map<String, Value>;

/// Time limit for background work between processes.
const SETTLING: Duration = Duration::from_secs(30);

/// Checks every invariant and returns the numbers of rows and blobs.
pub async fn check(stage: &Stage) -> anyhow::Result<Counts> {
    let ready = every_image_has_one_end(stage).await?;
    let blobs = every_rendition_has_its_blob(stage).await?;
    if stage.setup == Setup::Full {
        let condition = "every cache invalidation is sent";
        eventually_none(stage, condition, "SELECT count(*) FROM cache_invalidation").await?;
    }
    let open = "no job holds a lease or a place at some content";
    let held = "SELECT count(*) FROM jobs WHERE lease_token IS NOT NULL OR working_on IS NOT NULL";
    eventually_none(stage, open, held).await?;
    doctor_is_content(stage).await?;
    let failed = stage.number("SELECT count(*) FROM images WHERE status = 'failed'").await?;
    let counts = [("images_ready", json!(ready)), ("images_failed", json!(failed)), ("blobs", json!(blobs))];
    Ok(counts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Returns each image's renditions by source URL, as `preset/format/key`.
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

/// Checks that each rendition's file exists and matches its hash; returns their number.
async fn every_rendition_has_its_blob(stage: &Stage) -> anyhow::Result<usize> {
    let rows = stage.rows("SELECT DISTINCT blob_key FROM renditions").await?;
    let directory = stage.directory.join("data/blobs");
    for row in &rows {
        let key: String = row.try_get_by_index(0)?;
        let bytes = tokio::fs::read(directory.join(&key)).await.with_context(|| format!("the blob {key}"))?;
        let name = key.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default();
        anyhow::ensure!(hex::encode(Sha256::digest(&bytes)) == name, "the blob {key} does not match its hash");
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
    tokio::time::timeout(SETTLING, asking).await.with_context(|| format!("not reached within {SETTLING:?}: {what}"))?
}

/// An engine that has just come back may need a moment.
async fn doctor_is_content(stage: &Stage) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let report = stage.doctor().await?;
        if report["healthy"] == true {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < SETTLING, "pm doctor: {report}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
