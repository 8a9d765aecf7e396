//! Damaged backups, young and old: the damage is named, the next backup repairs it, `pm restore --allow-missing`
//! restores the rest.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use pm::blobs::BlobKey;
use serde_json::{Value, json};

use super::{code, cut, doctor, file_of, flip, json as printed_json, keys, pm, stderr};
use crate::support::{Origin, TestApp, app, images, on_both_setups};

async fn backup(app: &TestApp, directory: &Path, words: &[&str]) -> Value {
    let directory = directory.display().to_string();
    let output = pm(app, &[&["backup", &directory, "-o", "json"], words].concat()).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    printed_json(&output)
}

/// Products with one image each.
async fn ready_products(app: &TestApp, origin: &Origin, count: u16) -> Vec<Value> {
    let mut ids = Vec::new();
    for number in 0..count {
        let path = format!("/{number}.jpg");
        origin.serve(&path, "image/jpeg", images::jpeg(700 + number, 500));
        ids.push(app.create(&[origin.url(&path)]).await["id"].clone());
    }
    app.drain().await;
    let mut products = Vec::new();
    for id in ids {
        products.push(app.product(&id).await);
    }
    assert!(products.iter().all(|product| product["status"] == "ready"), "{products:?}");
    products
}

fn tables(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tables-")).unwrap()
}

/// Damages a file and keeps its time, as silent disk corruption does.
fn rot(file: &Path) {
    let modified = fs::metadata(file).unwrap().modified().unwrap();
    flip(file);
    fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
}

/// Makes a copy look verified 31 days ago.
fn age(file: &Path) {
    let proved = fs::metadata(file).unwrap().modified().unwrap();
    fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(proved - Duration::from_secs(31 * 86_400))
        .unwrap();
}

fn has(list: &Value, part: &str) -> bool {
    list.as_array().unwrap().iter().any(|name| name.as_str().unwrap().contains(part))
}

on_both_setups! {
    async fn backup_verify_names_and_repairs_every_damaged_file(app: &TestApp) {
        let origin = Origin::start().await;
        let product = ready_products(app, &origin, 1).await.remove(0);
        let directory = app.directory().join("backup");
        let first = backup(app, &directory, &[]).await;
        assert_eq!((&first["mended"], &first["verified"]), (&json!(0), &json!(0)));
        let keys = keys(&product);
        let blob = |number: usize| directory.join("blobs").join(keys[number].as_str());
        rot(&blob(0));
        cut(&blob(1));
        fs::remove_file(blob(2)).unwrap();
        for name in ["products.ndjson", "images.ndjson", "secrets.age"] {
            flip(&tables(&directory).join(name));
        }
        flip(&directory.join("manifest.json"));
        let mended = backup(app, &directory, &["--verify"]).await;
        for file in [keys[0].as_str(), keys[1].as_str(), keys[2].as_str(), "products.ndjson", "images.ndjson", "secrets.age", "manifest.json"] {
            assert!(has(&mended["mended_files"], file), "{file} is not named: {mended}");
        }
        assert_eq!((&mended["mended"], &mended["verified"]), (&json!(7), &json!(keys.len() - 3)));
        let again = backup(app, &directory, &["--verify"]).await;
        assert_eq!((&again["mended"], &again["verified"]), (&json!(0), &json!(keys.len())));
        app::run(app.setup, async |target: &TestApp| {
            let output = pm(target, &["restore", &directory.display().to_string(), "--yes"]).await;
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            assert_eq!(target.product(&product["id"]).await, product);
        })
        .await;
    }

    async fn a_backup_repairs_changed_files_and_files_not_verified_for_30_days(app: &TestApp) {
        let origin = Origin::start().await;
        let product = ready_products(app, &origin, 1).await.remove(0);
        let directory = app.directory().join("backup");
        backup(app, &directory, &[]).await;
        let keys = keys(&product);
        let blob = |number: usize| directory.join("blobs").join(keys[number].as_str());
        flip(&blob(0));
        age(&blob(1));
        rot(&blob(1));
        age(&blob(2));
        let mended = backup(app, &directory, &[]).await;
        assert_eq!((&mended["mended"], &mended["verified"], &mended["copied"]), (&json!(2), &json!(1), &json!(0)), "{mended}");
        assert!(has(&mended["mended_files"], keys[0].as_str()) && has(&mended["mended_files"], keys[1].as_str()));
        let quiet = backup(app, &directory, &[]).await;
        assert_eq!((&quiet["mended"], &quiet["verified"]), (&json!(0), &json!(0)), "all was proved a moment ago");
    }

    async fn undamaged_data_are_restored_to_a_consistent_catalog(app: &TestApp) {
        let origin = Origin::start().await;
        let products = ready_products(app, &origin, 6).await;
        let directory = app.directory().join("backup");
        backup(app, &directory, &[]).await;
        let path = directory.display().to_string();
        flip(&directory.join("blobs").join(keys(&products[0])[0].as_str()));
        fs::remove_file(directory.join("blobs").join(keys(&products[1])[3].as_str())).unwrap();
        flip_row(&tables(&directory).join("products.ndjson"), 2);
        flip_row(&tables(&directory).join("renditions.ndjson"), 3 * 4);
        flip_row(&tables(&directory).join("jobs.ndjson"), 4);
        flip_row(&tables(&directory).join("users.ndjson"), 0);
        app::run(app.setup, async |target: &TestApp| {
            let refused = pm(target, &["restore", &path, "--yes"]).await;
            assert!(code(&refused) == 1 && stderr(&refused).contains("--allow-missing"), "{}", stderr(&refused));
            let output = pm(target, &["restore", &path, "--yes", "--allow-missing", "-o", "json"]).await;
            assert_eq!(code(&output), 4, "{}", stderr(&output));
            for name in [keys(&products[0])[0].as_str(), keys(&products[1])[3].as_str(), "products.ndjson", "users.ndjson"] {
                assert!(stderr(&output).contains(name), "{name} is not named: {}", stderr(&output));
            }
            assert_eq!((&printed_json(&output)["products"], &printed_json(&output)["missing"], &printed_json(&output)["queued"]), (&json!(5), &json!(2), &json!(3)), "{}", printed_json(&output));
            let whole = doctor(target, &[]).await;
            assert_eq!(whole["healthy"], true, "{whole}");
            assert_eq!(target.get(&format!("/products/{}", products[2]["id"])).await.status(), 404, "its row is lost");
            target.drain().await;
            for product in [&products[0], &products[1], &products[3], &products[4], &products[5]] {
                let now = target.product(&product["id"]).await;
                assert_eq!(keys(&now), keys(product), "{now}");
                assert_eq!((&now["status"], &now["product_name"]), (&json!("ready"), &product["product_name"]));
            }
            assert_eq!(doctor(target, &[]).await["healthy"], true);
        })
        .await;
    }

    async fn the_largest_rendition_replaces_a_lost_upload(app: &TestApp) {
        let add = |name: &'static str, side: u16| async move {
            fs::write(app.directory().join(name), images::jpeg(side, side)).unwrap();
            let words = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", name, "-q"];
            let output = pm(app, &words).await;
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let (one, other) = (add("one.jpg", 400).await, add("other.jpg", 401).await);
        app.drain().await;
        let directory = app.directory().join("backup");
        backup(app, &directory, &[]).await;
        let (one, other) = (app.product(&one).await, app.product(&other).await);
        let original = |side: u16| BlobKey::for_bytes(&images::jpeg(side, side), "jpg").unwrap().as_original();
        let copy = |key: &str| directory.join("blobs").join(key);
        flip(&copy(original(400).as_str()));
        fs::remove_file(copy(original(401).as_str())).unwrap();
        keys(&other).iter().for_each(|key| cut(&copy(key.as_str())));
        app::run(app.setup, async |target: &TestApp| {
            let words = ["restore", &directory.display().to_string(), "--yes", "--allow-missing", "-o", "json"];
            let output = pm(target, &words).await;
            assert_eq!(code(&output), 4, "{}", stderr(&output));
            assert_eq!((&printed_json(&output)["replaced"], &printed_json(&output)["failed"]), (&json!(1), &json!(1)), "{}", printed_json(&output));
            assert_eq!(doctor(target, &[]).await["healthy"], true);
            let kept = target.product(&one["id"]).await;
            assert_eq!((&kept["status"], keys(&kept)), (&json!("ready"), keys(&one)));
            let lost = target.product(&other["id"]).await;
            assert_eq!(lost["images"][0]["error"]["code"], "source_not_found", "{lost}");
            assert_eq!(backup(target, &target.directory().join("next"), &[]).await["missing"], 0, "not reported again");
        })
        .await;
    }

    async fn a_lost_blob_is_repaired_from_the_backup(app: &TestApp) {
        let origin = Origin::start().await;
        let product = ready_products(app, &origin, 1).await.remove(0);
        let directory = app.directory().join("backup");
        backup(app, &directory, &[]).await;
        let key = keys(&product)[0].clone();
        flip(&file_of(app, key.as_str()));
        let printed = doctor(app, &["--repair", "--from", &directory.display().to_string()]).await;
        assert_eq!(printed["healthy"], true, "{printed}");
        let blobs = printed["checks"].as_array().unwrap().iter().find(|check| check["check"] == "blobs").unwrap();
        assert_eq!(blobs["repaired"], json!([{"what": key.as_str(), "how": "copied from the backup"}]));
        assert_eq!(app.product(&product["id"]).await, product, "nothing else changed");
    }
}

/// Changes a byte of one row of a file.
fn flip_row(file: &Path, row: usize) {
    let text = fs::read(file).unwrap();
    let begin = text.split(|byte| *byte == b'\n').take(row).map(|line| line.len() + 1).sum::<usize>();
    let mut changed = text;
    changed[begin + 12] ^= 1;
    fs::write(file, changed).unwrap();
}
