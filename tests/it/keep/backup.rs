//! `pm backup` beside a busy system, `pm restore` into an empty one, on the same engines and on the others.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use pm::maintenance::backup::{ApiKeys, Restoring};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{code, doctor, file_of, json as printed_json, keys, make_old, pm, stderr};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

const WITHOUT_SECRETS: Restoring<'static> = Restoring { secrets: None, api_keys: ApiKeys::LeaveOut };

fn path(directory: &Path) -> String {
    directory.display().to_string()
}

async fn backup(app: &TestApp, directory: &Path) -> Value {
    let output = pm(app, &["backup", &path(directory), "-o", "json"]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    printed_json(&output)
}

async fn rows(app: &TestApp) -> Vec<u64> {
    let mut counts = Vec::new();
    for table in pm::db::maintenance::transfer::tables() {
        counts.push(table.count(&app.app.database.read()).await.unwrap());
    }
    counts
}

pub async fn ready_product(app: &TestApp) -> Value {
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
    let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
    app.drain().await;
    app.product(&id).await
}

/// Everything acknowledged before the backup began is restored, whatever runs meanwhile.
async fn comes_back(from: Setup, into: Setup) {
    let origin = Origin::start().await;
    for number in 0..12_u16 {
        origin.serve(&format!("/{number}.jpg"), "image/jpeg", images::jpeg(500 + number, 400));
    }
    let urls = |number: usize| vec![origin.url(&format!("/{}.jpg", number % 12)), origin.url("/status/404")];
    let copied = app::run(from, async |source: &TestApp| {
        let mut settled = Vec::new();
        for number in 0..6 {
            settled.push(source.create(&urls(number)).await["id"].clone());
        }
        source.drain().await;
        // One job is held by a worker that never returns, one waits.
        let held = source.create(&urls(6)).await["id"].clone();
        source.claim().await.unwrap();
        let waiting = source.create(&urls(7)).await["id"].clone();

        let directory = source.directory().join("backup");
        let (stopper, worker) = source.start_worker().await;
        let done = AtomicBool::new(false);
        let write = async {
            let mut written = 0;
            while !done.load(Ordering::Relaxed) {
                source.create(&urls(written)).await;
                written += 1;
            }
            written
        };
        let save = async {
            let saved = backup(source, &directory).await;
            done.store(true, Ordering::Relaxed);
            saved
        };
        let (written, saved) = tokio::join!(write, save);
        stopper.cancel();
        worker.await.unwrap();
        assert!(written > 0 && saved["products"].as_u64().unwrap() >= 8, "{written} beside {saved}");

        app::run(into, async |target: &TestApp| {
            assert_eq!(target.get(&format!("/products/{}", settled[0])).await.status(), 404, "and that is cached");
            let output = pm(target, &["restore", &path(&directory), "--yes", "-o", "json"]).await;
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            assert_eq!(printed_json(&output)["products"], saved["products"]);
            for id in &settled {
                assert_eq!(target.product(id).await, source.product(id).await);
            }
            let printed = doctor(target, &[]).await;
            assert_eq!(printed["healthy"], true, "{printed}");
            target.drain().await;
            for id in [&held, &waiting] {
                assert_eq!(target.product(id).await["images"][0]["status"], "ready", "its work went on");
            }
            let newest = saved["products"].as_i64().unwrap();
            assert!(target.create(&[]).await["id"].as_i64().unwrap() > newest, "no id is repeated");
            assert_eq!(doctor(target, &[]).await["healthy"], true);
        })
        .await;
    });
    Box::pin(copied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_products_are_restored_on_the_other_engines() {
    comes_back(Setup::Embedded, Setup::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_products_are_restored_on_the_embedded_engines() {
    comes_back(Setup::Full, Setup::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_products_are_restored_on_the_same_engines() {
    comes_back(Setup::Full, Setup::Full).await;
    comes_back(Setup::Embedded, Setup::Embedded).await;
}

/// Returns the directory of tables that the manifest names.
fn tables(directory: &Path) -> PathBuf {
    let manifest: Value = serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
    directory.join(manifest["folder"].as_str().unwrap())
}

/// Returns the only directory of tables, without a manifest.
fn tables_left(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tables-")).unwrap()
}

/// Returns a manifest with a valid checksum.
fn resealed(text: &str) -> String {
    const BEGINS: &str = "\"checksum\": \"";
    let at = text.rfind(BEGINS).unwrap() + BEGINS.len();
    let zeroed = [&text[..at], &"0".repeat(64), &text[at + 64..]].concat();
    [&text[..at], &hex::encode(Sha256::digest(zeroed.as_bytes())), &text[at + 64..]].concat()
}

fn edit(file: &Path, change: impl Fn(&str) -> String) {
    fs::write(file, change(&fs::read_to_string(file).unwrap())).unwrap();
}

/// Tables that belong to one installation, or are derived from others.
const LEFT_OUT: [&str; 9] = [
    "installation",
    "seaql_migrations",
    "cache_invalidation",
    "product_words",
    "idempotency_keys",
    "events",
    "webhook_deliveries",
    "lost_claims",
    "clock_anchors",
];

/// Returns every column of every table of the schema, as `table.column`.
async fn columns_of_the_schema(app: &TestApp) -> Vec<String> {
    let connection = app.app.database.read();
    let sql = match app.setup {
        Setup::Embedded => {
            "SELECT m.name || '.' || c.name AS name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'
                AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE 'product_name_pieces%' AND m.name NOT LIKE 'product_words_search%'"
        }
        Setup::Full => {
            "SELECT table_name || '.' || column_name AS name FROM information_schema.columns
                WHERE table_schema = current_schema()"
        }
    };
    let rows = connection.query_all_raw(Statement::from_string(connection.get_database_backend(), sql)).await.unwrap();
    let names = rows.iter().map(|row| row.try_get::<String>("", "name").unwrap());
    let is_kept = |name: &String| !LEFT_OUT.iter().any(|table| name.starts_with(&format!("{table}.")));
    let mut names: Vec<_> = names.filter(is_kept).collect();
    names.sort();
    names
}

on_both_setups! {
    async fn a_backup_contains_every_table_and_column(app: &TestApp) {
        let tables = pm::db::maintenance::transfer::tables();
        let columns = tables.iter().flat_map(|table| table.columns().into_iter().map(|name| format!("{}.{name}", table.name)));
        let mut copied: Vec<_> = columns.collect();
        copied.sort();
        assert_eq!(copied, columns_of_the_schema(app).await);
    }

    async fn a_second_backup_copies_only_new_blobs_and_replaces_the_first(app: &TestApp) {
        let first = ready_product(app).await;
        let directory = app.directory().join("backup");
        assert_eq!(backup(app, &directory).await["copied"], keys(&first).len());
        let before = tables(&directory);
        ready_product(app).await;
        let again = backup(app, &directory).await;
        assert_eq!((&again["copied"], &again["products"]), (&json!(0), &json!(2)), "both have the same images");
        assert!(!before.exists() && tables(&directory).exists());

        fs::remove_file(directory.join("manifest.json")).unwrap();
        let cut_off = pm(app, &["restore", &path(&directory), "--yes"]).await;
        assert_eq!(code(&cut_off), 1);
        assert!(stderr(&cut_off).contains("manifest.json is missing"), "{}", stderr(&cut_off));
        fs::remove_file(tables_left(&directory).join("manifest.json")).unwrap();
        let cut_off = pm(app, &["restore", &path(&directory), "--yes"]).await;
        assert!(code(&cut_off) == 1 && stderr(&cut_off).contains("no finished backup"), "{}", stderr(&cut_off));

        let other = app.directory().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("letter.txt"), "dear").unwrap();
        let refused = pm(app, &["backup", &path(&other)]).await;
        assert_eq!(code(&refused), 1);
        assert!(stderr(&refused).contains("letter.txt") && !other.join("blobs").exists(), "{}", stderr(&refused));
    }

    async fn a_backup_names_lost_blobs_and_keeps_the_rest(app: &TestApp) {
        let product = ready_product(app).await;
        assert_eq!(keys(&ready_product(app).await), keys(&product), "two products refer to the same blobs");
        let (gone, changed) = (&keys(&product)[0], &keys(&product)[1]);
        app.app.blobs.delete(gone).await.unwrap();
        fs::write(file_of(app, changed.as_str()), "changed").unwrap();
        let directory = app.directory().join("backup");
        let output = pm(app, &["backup", &path(&directory), "-o", "json"]).await;
        assert_eq!(code(&output), 4, "{}", stderr(&output));
        for key in [gone, changed] {
            assert!(stderr(&output).contains(&format!("missing: {key}")), "{}", stderr(&output));
        }
        assert!(stderr(&output).contains("2 blobs; references to them: 4"), "{}", stderr(&output));
        assert_eq!(printed_json(&output)["missing_keys"].as_array().map(Vec::len), Some(2));
        assert_eq!((&printed_json(&output)["missing"], &printed_json(&output)["missing_references"]), (&json!(2), &json!(4)));
        assert_eq!(printed_json(&output)["copied"], keys(&product).len() - 2);
        app::run(app.setup, async |target: &TestApp| {
            let output = pm(target, &["restore", &path(&directory), "--yes"]).await;
            assert_eq!(code(&output), 4, "{}", stderr(&output));
            assert_eq!(doctor(target, &[]).await["healthy"], true, "lost blobs are not referenced");
            assert_eq!(target.product(&product["id"]).await["images"][0]["status"], "pending", "it is remade");
        })
        .await;
    }

    async fn files_of_a_backup_that_vanish_during_a_restore_leave_the_database_untouched(app: &TestApp) {
        let product = ready_product(app).await;
        let directory = app.directory().join("backup");
        backup(app, &directory).await;
        let blob = directory.join("blobs").join(keys(&product)[0].as_str());
        let vanishing = ["users", "products", "images", "renditions"].map(|name| format!("{name}.ndjson"));
        // The blob first: one copied by an earlier attempt would be in the store and not missed.
        let vanishing = std::iter::once(blob).chain(vanishing.iter().map(|name| tables(&directory).join(name)));
        app::run(app.setup, async |target: &TestApp| {
            let before = rows(target).await;
            for file in vanishing {
                let checked = pm::maintenance::backup::check(&directory, &mut |_| {}).await.unwrap();
                let moved = directory.with_extension("moved");
                fs::rename(&file, &moved).unwrap();
                let refused = target.app.catalog.restore(&checked, WITHOUT_SECRETS, &mut |_| {}).await;
                assert!(refused.is_err(), "{} is missing: {refused:?}", file.display());
                assert_eq!(rows(target).await, before, "{}", file.display());
                fs::rename(&moved, &file).unwrap();
            }
            let checked = pm::maintenance::backup::check(&directory, &mut |_| {}).await.unwrap();
            assert!(target.app.catalog.restore(&checked, WITHOUT_SECRETS, &mut |_| {}).await.unwrap().is_whole());
        })
        .await;
    }

    async fn a_damaged_backup_is_refused_and_changes_nothing(app: &TestApp) {
        let product = ready_product(app).await;
        let directory = app.directory().join("backup");
        backup(app, &directory).await;
        let (manifest, rows_file) = (directory.join("manifest.json"), tables(&directory).join("products.ndjson"));
        let blob = directory.join("blobs").join(keys(&product)[0].as_str());
        app::run(app.setup, async |target: &TestApp| {
            let refused = async |what: &str| {
                let output = pm(target, &["restore", &path(&directory), "--yes"]).await;
                assert_eq!(code(&output), 1, "{}", stderr(&output));
                assert!(stderr(&output).contains(what) && stderr(&output).contains("hint: "), "{}", stderr(&output));
                assert_eq!(rows(target).await, [0; 9], "no row of any table");
                assert!(!target.app.blobs.exists(&keys(&product)[1]).await.unwrap(), "and no blob");
            };
            edit(&rows_file, |text| text.replace("Sample", "Simple"));
            refused("products.ndjson does not match the manifest").await;
            edit(&rows_file, |text| text.replace("Simple", "Sample"));

            let whole = fs::read(&blob).unwrap();
            fs::write(&blob, &whole[..whole.len() / 2]).unwrap();
            refused(keys(&product)[0].as_str()).await;
            fs::remove_file(&blob).unwrap();
            refused(keys(&product)[0].as_str()).await;
            fs::write(&blob, whole).unwrap();

            edit(&manifest, |text| text.replace("sqlite", "sqlate").replace("postgres", "postgras"));
            refused("manifest.json is damaged").await;
            edit(&manifest, |text| resealed(&text.replace("sqlate", "sqlite").replace("postgras", "postgres")));
            edit(&manifest, |text| resealed(&text.replace("\"format\": 2", "\"format\": 3")));
            refused("has format 3; this version of pm reads formats 1 and 2").await;
            edit(&manifest, |text| resealed(&text.replace("\"format\": 3", "\"format\": 2").replace("m0011", "m9999")));
            refused("that this version lacks").await;
            edit(&manifest, |text| resealed(&text.replace("m9999", "m0011")));

            let unasked = pm(target, &["restore", &path(&directory)]).await;
            assert_eq!(code(&unasked), 2, "a prompt is impossible: {}", stderr(&unasked));
            let restored = pm(target, &["restore", &path(&directory), "--yes"]).await;
            assert_eq!(code(&restored), 0, "whole again: {}", stderr(&restored));
            let twice = pm(target, &["restore", &path(&directory), "--yes"]).await;
            assert_eq!(code(&twice), 1);
            assert!(stderr(&twice).contains("the database is not empty"), "{}", stderr(&twice));
            assert_eq!(target.product(&product["id"]).await, product);
        })
        .await;
    }

    async fn gc_waits_for_a_running_backup(app: &TestApp) {
        let orphan = app.app.blobs.put(Bytes::from("orphan"), "png").await.unwrap();
        make_old(app, orphan.as_str());
        let hold = app.another().await.database.hold_blobs().await.unwrap();
        let copy = async {
            // A backup takes the same shared lock, so it does not wait for another backup.
            backup(app, &app.directory().join("backup")).await;
            let is_there = app.app.blobs.exists(&orphan).await.unwrap();
            hold.release().await.unwrap();
            is_there
        };
        let (was_there, collected) = tokio::join!(copy, pm(app, &["gc"]));
        assert!(was_there, "it was removed while blobs were held");
        assert_eq!(code(&collected), 0, "{}", stderr(&collected));
        assert!(!app.app.blobs.exists(&orphan).await.unwrap());
    }
}
