//! Damaged blobs never reach other products; reprocessing repairs them, and so does `pm doctor --repair` where
//! possible.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use pm::{
    blobs::BlobKey,
    cache::{Entry, Lookup},
    catalog::{Selection, Which},
    domain::ProductId,
};
use serde_json::{Value, json};

use super::{code, cut, doctor, failed, file_of, flip, json as printed_json, keys, make_old, pm, stderr};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups, s3::S3Server};

async fn ready(app: &TestApp, url: String) -> Value {
    let id = app.create(&[url]).await["id"].clone();
    app.drain().await;
    let product = app.product(&id).await;
    assert_eq!(product["status"], "ready", "{product}");
    product
}

async fn reprocess(app: &TestApp, product: &Value) {
    let selection = Selection {
        products: vec![ProductId(product["id"].as_i64().unwrap())],
        status: Which::All,
        ..Selection::default()
    };
    app.app.catalog.reprocess(&selection, None, 100, None).await.unwrap();
    app.drain().await;
}

fn is_whole(file: &Path, key: &BlobKey) -> bool {
    let bytes = fs::read(file).unwrap_or_default();
    BlobKey::for_bytes(&bytes, key.extension()).as_ref() == Some(key)
}

/// Damages each blob of a product in each way while it is young; then `mend` must repair it.
async fn damaged_blobs_are_mended(app: &TestApp, file: impl Fn(&BlobKey) -> PathBuf) {
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
    origin.serve("/copy.jpg", "image/jpeg", images::jpeg(700, 500));
    let first = ready(app, origin.url("/a.jpg")).await;
    let keys = keys(&first);
    for damage in [flip as fn(&Path), cut] {
        keys.iter().for_each(|key| damage(&file(key)));
        let copy = ready(app, origin.url("/copy.jpg")).await;
        assert_eq!(super::keys(&copy), keys);
        keys.iter().for_each(|key| assert!(is_whole(&file(key), key), "{key} was shared although damaged"));

        // The product without a duplicate makes its blobs again, the one with a duplicate verifies the duplicate's.
        for product in [&first, &copy] {
            keys.iter().for_each(|key| damage(&file(key)));
            reprocess(app, product).await;
            keys.iter().for_each(|key| assert!(is_whole(&file(key), key), "{key} is ready and damaged"));
        }
        app.sql(&format!("DELETE FROM products WHERE id = {}", copy["id"])).await;
        keys.iter().for_each(|key| damage(&file(key)));
        reprocess(app, &first).await;
        keys.iter().for_each(|key| assert!(is_whole(&file(key), key), "{key} is ready and damaged"));
    }
}

on_both_setups! {
    async fn a_damaged_blob_is_never_shared_and_reprocessing_repairs_it(app: &TestApp) {
        damaged_blobs_are_mended(app, |key| file_of(app, key.as_str())).await;
    }

    async fn a_damaged_upload_fails_and_is_not_made_into_renditions(app: &TestApp) {
        fs::write(app.directory().join("cup.jpg"), images::jpeg(300, 200)).unwrap();
        let words = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", "cup.jpg", "-q"];
        let id: Value = serde_json::from_slice(&pm(app, &words).await.stdout).unwrap();
        let key = BlobKey::for_bytes(&images::jpeg(300, 200), "jpg").unwrap().as_original();
        flip(&file_of(app, key.as_str()));
        app.drain().await;
        let product = app.product(&id).await;
        assert_eq!(product["images"][0]["error"]["code"], "source_damaged", "{product}");
        // Uploading the same file again repairs the stored one.
        assert_eq!(code(&pm(app, &words).await), 0);
        reprocess(app, &product).await;
        assert_eq!(app.product(&id).await["status"], "ready");
    }

    async fn repair_queues_images_without_an_undamaged_copy(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
        let product = ready(app, origin.url("/a.jpg")).await;
        let keys = keys(&product);
        flip(&file_of(app, keys[0].as_str()));
        fs::remove_file(file_of(app, keys[1].as_str())).unwrap();
        let seen = doctor(app, &[]).await;
        assert_eq!(failed(&seen), ["blobs"], "{seen}");
        assert!(seen.to_string().contains("doctor --repair"), "the hint names it: {seen}");
        assert_eq!(doctor(app, &[]).await["healthy"], false, "without --repair nothing is changed");

        let repaired = doctor(app, &["--repair"]).await;
        assert_eq!(repaired["healthy"], true, "{repaired}");
        let blobs = repaired["checks"].as_array().unwrap().iter().find(|check| check["check"] == "blobs").unwrap();
        assert_eq!(blobs["repaired"].as_array().unwrap().len(), 2, "{blobs}");
        assert_eq!(app.product(&product["id"]).await["images"][0]["status"], "pending");
        app.drain().await;
        let now = app.product(&product["id"]).await;
        assert_eq!((super::keys(&now), &now["status"]), (keys, &json!("ready")));
        assert_eq!(doctor(app, &[]).await["healthy"], true);
    }

    async fn repair_fixes_states_files_and_the_cache(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(400, 300));
        origin.serve("/b.jpg", "image/jpeg", images::jpeg(400, 301));
        origin.serve("/c.jpg", "image/jpeg", images::jpeg(400, 302));
        let jobless = ready(app, origin.url("/a.jpg")).await;
        let busy = ready(app, origin.url("/b.jpg")).await;
        let old = ready(app, origin.url("/c.jpg")).await;
        let image = |product: &Value| product["images"][0]["id"].clone();
        app.sql(&format!("UPDATE images SET status = 'processing' WHERE id = {}", image(&jobless))).await;
        app.sql(&format!("UPDATE jobs SET state = 'queued', run_at = 9000000000000000 WHERE image_id = {}", image(&busy))).await;
        app.sql(&format!("UPDATE images SET generation = 2 WHERE id = {}", image(&old))).await;
        app.sql(&format!("UPDATE jobs SET state = 'queued', run_at = 9000000000000000 WHERE image_id = {}", image(&old))).await;
        let orphan = app.app.blobs.put(Bytes::from("orphan"), "png").await.unwrap();
        fs::write(file_of(app, &format!("{orphan}#1")), "orp").unwrap();
        make_old(app, &format!("{orphan}#1"));
        make_old(app, orphan.as_str());
        let id = ProductId(busy["id"].as_i64().unwrap());
        let cache = &app.app.health.cache;
        cache.invalidate(&[id]).await.unwrap();
        let Lookup::Miss(fill) = cache.lookup(id).await else { panic!("it was dropped") };
        cache.fill(fill, id, Entry::Value(Bytes::from("\"0123456789abcdef\"{}"))).await;

        let output = pm(app, &["doctor", "--json", "--repair"]).await;
        let repaired = printed_json(&output);
        assert_eq!(code(&output), 0, "{repaired} {}", stderr(&output));
        for check in ["images", "orphans"] {
            let found = repaired["checks"].as_array().unwrap().iter().find(|found| found["check"] == check).unwrap();
            assert!(!found["repaired"].as_array().unwrap().is_empty(), "{found}");
        }
        assert!(!file_of(app, &format!("{orphan}#1")).exists(), "the unfinished file went with the orphans");
        assert_eq!(doctor(app, &[]).await["healthy"], true);
        app.let_time_pass().await;
        app.drain().await;
        for product in [&jobless, &busy, &old] {
            let now = app.product(&product["id"]).await;
            assert_eq!((&now["status"], keys(&now)), (&json!("ready"), keys(product)), "{now}");
        }
        assert_eq!(doctor(app, &[]).await["healthy"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_s3_object_is_repaired() {
    let server = S3Server::start().await;
    let mut settings = server.environment().to_vec();
    settings.push(("PM_STORAGE_URL", format!("s3://{}/shop", server.bucket())));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    app::run_with(Setup::Full, &settings, async |app: &TestApp| {
        let object = |key: &BlobKey| server.directory().join("shop").join(key.as_str());
        damaged_blobs_are_mended(app, object).await;

        let origin = Origin::start().await;
        origin.serve("/b.jpg", "image/jpeg", images::jpeg(640, 480));
        let product = ready(app, origin.url("/b.jpg")).await;
        let directory = app.directory().join("backup").display().to_string();
        assert_eq!(code(&pm(app, &["backup", &directory]).await), 0);
        flip(&object(&keys(&product)[0]));
        assert_eq!(failed(&doctor(app, &[]).await), ["blobs"]);
        assert_eq!(doctor(app, &["--repair", "--from", &directory]).await["healthy"], true);
        flip(&Path::new(&directory).join("blobs").join(keys(&product)[1].as_str()));
        let saved = pm(app, &["backup", &directory, "--verify", "-o", "json"]).await;
        assert_eq!((code(&saved), &printed_json(&saved)["mended"]), (0, &json!(1)), "{}", stderr(&saved));
    })
    .await;
}
