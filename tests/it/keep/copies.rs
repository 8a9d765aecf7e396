//! A copied database is a separate installation, and neither it nor the original loses data of the other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use pm::db::Database;
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{backup::ready_product, code, pm, stderr};
use crate::support::{Setup, TestApp, app, on_both_setups};

fn marker(blobs: &Path) -> Value {
    serde_json::from_slice(&fs::read(blobs.join("installation.json")).unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Copies the data directory while nothing is written; returns the copy.
fn copied_data(app: &TestApp) -> PathBuf {
    let copied = app.directory().join("copied");
    copy(&app.directory().join("data"), &copied);
    copied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_data_directory_is_another_installation() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let product = ready_product(app).await;
        let copied = copied_data(app);
        let original = marker(&app.directory().join("data/blobs"));
        let show = ["product", "get", &product["id"].to_string(), "--data-dir", &path(&copied)];
        let shown = pm(app, &show).await;
        assert_eq!(code(&shown), 0, "{}", stderr(&shown));
        let said = format!("a copy of installation {}", original["installation"].as_str().unwrap());
        assert!(stderr(&shown).contains(&said), "{}", stderr(&shown));

        let own = marker(&copied.join("blobs"));
        assert_ne!((&own["installation"], &own["store"]), (&original["installation"], &original["store"]));
        assert_eq!(marker(&app.directory().join("data/blobs")), original);
        let again = pm(app, &show).await;
        assert_eq!((code(&again), stderr(&again).as_str()), (0, ""), "it is no news any more");
        assert_eq!(marker(&copied.join("blobs")), own);
        assert_eq!(app.product(&product["id"]).await["id"], product["id"], "the original continues");
    })
    .await;
}

/// A server on a new directory, and the result of a write to it.
async fn exchanged(exchange: impl AsyncFnOnce(&Path, &Database)) {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let directory = app.directory().join("exchanged");
        let mut environment = app.environment.clone();
        environment.insert("PM_DATA_DIR".into(), path(&directory));
        let server = app::build(&environment, app.directory()).await;
        let database = server.database.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(async move { Box::pin(server.serve(listener, 0, stop)).await });
        write(&database).await.unwrap();
        exchange(&directory.join("pm.db"), &database).await;
        assert!(write(&database).await.unwrap_err().is_transient(), "it would be lost with the process");
        let error = running.await.unwrap().expect_err("the server ends").to_string();
        assert!(error.contains("another file replaced the database"), "{error}");
    })
    .await;
}

async fn write(database: &Database) -> Result<(), pm::db::Error> {
    let write = database.begin().await?;
    pm::db::accounts::users::insert(
        &*write,
        &pm::domain::User {
            id: pm::domain::UserId::parse(&uuid::Uuid::new_v4().to_string()).unwrap(),
            name: None,
            email: None,
            created_at: write.now().await?,
        },
    )
    .await?;
    write.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_database_file_stops_the_server_without_a_write() {
    exchanged(async |file: &Path, database: &Database| {
        let aside = file.with_file_name("aside.db");
        fs::rename(file, &aside).unwrap();
        // Longer than failed connections are avoided, so that new ones are opened to read.
        for _ in 0..9 {
            assert!(write(database).await.unwrap_err().is_transient());
            let reads = (0..12).map(|_| async { pm::db::connection::installation::read(&database.read()).await });
            futures_util::future::join_all(reads).await;
            sleep(Duration::from_secs(1)).await;
        }
        assert!(!file.exists(), "no file replaces a missing file");
        fs::rename(&aside, file).unwrap();
        write(database).await.expect("the same file is recognized");
        fs::copy(file, &aside).unwrap();
        fs::rename(&aside, file).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_copied_over_the_database_stops_the_server_without_a_write() {
    exchanged(async |file: &Path, _| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, bytes).unwrap();
        fs::remove_file(file.with_file_name("pm.db-wal")).unwrap();
        fs::remove_file(file.with_file_name("pm.db-shm")).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wal_without_its_database_is_not_deleted() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let directory = app.directory().join("torn");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("pm.db-wal"), "a log").unwrap();
        let refused = pm(app, &["migrate", "up", "--data-dir", &path(&directory)]).await;
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("write-ahead log"), "{}", stderr(&refused));
        assert!(!directory.join("pm.db").exists());
        assert_eq!(fs::read_to_string(directory.join("pm.db-wal")).unwrap(), "a log");
    })
    .await;
}

/// Moves the database elsewhere; returns the arguments with which commands find it and the original's store.
async fn copied(app: &TestApp) -> Vec<String> {
    if app.setup == Setup::Full {
        // As a copy of the database in another directory identifies itself.
        app.sql("UPDATE installation SET database_identity = '1:1'").await;
        return Vec::new();
    }
    let store = format!("file://{}", app.directory().join("data/blobs").display());
    vec!["--data-dir".into(), path(&copied_data(app)), "--storage-url".into(), store]
}

async fn pm_on(app: &TestApp, words: &[&str], place: &[String]) -> Output {
    let place = place.iter().map(String::as_str);
    pm(app, &words.iter().copied().chain(place).collect::<Vec<_>>()).await
}

on_both_setups! {
    async fn a_copied_database_does_not_take_the_blob_store_of_its_original(app: &TestApp) {
        let product = ready_product(app).await;
        let blobs = app.directory().join("data/blobs");
        let original = marker(&blobs);
        let place = copied(app).await;
        for words in [&["gc"][..], &["migrate", "fresh", "--yes"], &["migrate", "down", "1", "--yes"], &["gc"]] {
            let refused = pm_on(app, words, &place).await;
            assert_eq!(code(&refused), 2, "{words:?} {}", stderr(&refused));
            let said = stderr(&refused);
            assert!(said.contains("is a copy of installation") && said.contains("PM_STORAGE_ADOPT"), "{said}");
            assert_eq!(marker(&blobs), original, "{words:?}");
        }
        // Nor if the original is about to be deleted, or has another id by now.
        for change in [("released", Value::from(true)), ("installation", Value::from("f".repeat(32)))] {
            let mut changed = original.clone();
            changed[change.0] = change.1;
            fs::write(blobs.join("installation.json"), changed.to_string()).unwrap();
            assert_eq!(code(&pm_on(app, &["gc"], &place).await), 2);
            assert_eq!(marker(&blobs), changed);
        }
        assert_eq!(app.product(&product["id"]).await["id"], product["id"], "nothing was deleted");
    }

    async fn a_moved_database_keeps_its_blob_store_on_request(app: &TestApp) {
        let product = ready_product(app).await;
        let blobs = app.directory().join("data/blobs");
        let original = marker(&blobs);
        let place = copied(app).await;
        let gc = ["gc", "--dry-run"];
        assert_eq!(code(&pm_on(app, &gc, &place).await), 2);
        // Many concurrent processes come to the same answer.
        let mut environment = app.environment.clone();
        environment.insert("PM_STORAGE_ADOPT".into(), "true".into());
        let started: Vec<_> = (0..6)
            .map(|_| {
                let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pm"));
                command.env_clear().envs(&environment).current_dir(app.directory()).args(gc).args(&place);
                tokio::task::spawn_blocking(move || command.output().expect("pm starts"))
            })
            .collect();
        for adopting in started {
            let adopting = adopting.await.unwrap();
            assert_eq!(code(&adopting), 0, "{}", stderr(&adopting));
        }
        let own = marker(&blobs);
        assert_ne!((&own["installation"], &own["store"]), (&original["installation"], &original["store"]));
        let listed = pm_on(app, &gc, &place).await;
        assert_eq!(code(&listed), 0, "it needs no setting any more: {}", stderr(&listed));
        let shown = pm_on(app, &["product", "get", &product["id"].to_string()], &place).await;
        assert_eq!(code(&shown), 0, "{}", stderr(&shown));
    }

    async fn a_new_catalog_records_its_database_in_the_first_migration(app: &TestApp) {
        let fresh = pm(app, &["migrate", "fresh", "--yes"]).await;
        assert_eq!(code(&fresh), 0, "{}", stderr(&fresh));
        let unknown = "SELECT count(*) FROM installation WHERE database_identity IS NULL";
        assert_eq!(app.number(unknown).await, 0);
    }

    async fn a_backup_of_another_installation_is_replaced_only_on_request(app: &TestApp) {
        ready_product(app).await;
        let directory = path(&app.directory().join("backup"));
        let first = pm(app, &["backup", &directory]).await;
        assert_eq!(code(&first), 0, "{}", stderr(&first));
        app::run(app.setup, async |other: &TestApp| {
            let file = Path::new(&directory).join("manifest.json");
            let manifest = || fs::read_to_string(&file).unwrap();
            let refused = async |said: &str| {
                let before = manifest();
                let refused = pm(other, &["backup", &directory]).await;
                assert_eq!(code(&refused), 1, "{}", stderr(&refused));
                assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
                assert!(stderr(&refused).contains("--replace"), "{}", stderr(&refused));
                assert_eq!(manifest(), before);
            };
            refused("backup of installation").await;
            let newer = serde_json::json!({"format": 99, "installation": "a newer one's"});
            fs::write(&file, newer.to_string()).unwrap();
            refused("format 99").await;
            let replaced = pm(other, &["backup", &directory, "--replace"]).await;
            assert_eq!(code(&replaced), 0, "{}", stderr(&replaced));
            assert!(manifest().contains(other.app.catalog.installation().as_str()));
        })
        .await;
        assert_eq!(code(&pm(app, &["backup", &directory]).await), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_open_a_copy_at_once_agree_on_its_store() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        ready_product(app).await;
        for round in 0..4 {
            let copied = app.directory().join(format!("copy-{round}"));
            copy(&app.directory().join("data"), &copied);
            let words = ["product", "list", "--data-dir", &path(&copied)];
            for opened in futures_util::future::join_all((0..6).map(|_| pm(app, &words))).await {
                assert_eq!(code(&opened), 0, "{}", stderr(&opened));
            }
            assert_eq!(code(&pm(app, &words).await), 0);
        }
    })
    .await;
}
