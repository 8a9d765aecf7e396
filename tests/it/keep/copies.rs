//! A copied database is an installation of its own, and neither it nor the original loses what belongs to the other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

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

/// Copies the data directory while nothing is written, and returns the copy's.
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
        assert_eq!(app.product(&product["id"]).await["id"], product["id"], "the original goes on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_put_in_the_place_of_the_database_ends_the_server_and_takes_no_write() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let directory = app.directory().join("exchanged");
        let mut environment = app.environment.clone();
        environment.insert("PM_DATA_DIR".into(), path(&directory));
        let server = app::build(&environment, app.directory()).await;
        let database = server.database.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_stopper, stop) = pm::stop::channel();
        let running = tokio::spawn(async move { Box::pin(server.serve(listener, 0, stop)).await });
        let write = async || database.begin().await?.commit().await;
        write().await.unwrap();

        // First the file is gone, then another one is there.
        let (file, aside) = (directory.join("pm.db"), directory.join("aside.db"));
        fs::rename(&file, &aside).unwrap();
        assert!(write().await.unwrap_err().is_transient());
        fs::rename(&aside, &file).unwrap();
        write().await.expect("the same file is taken for the same");
        fs::copy(&file, &aside).unwrap();
        fs::rename(&aside, &file).unwrap();
        assert!(write().await.unwrap_err().is_transient(), "it would be lost with the process");
        let error = running.await.unwrap().expect_err("the server ends").to_string();
        assert!(error.contains("another file has taken the place of the database"), "{error}");
    })
    .await;
}

on_both_setups! {
    async fn a_copied_database_does_not_take_the_blob_store_of_its_original(app: &TestApp) {
        ready_product(app).await;
        let blobs = app.directory().join("data/blobs");
        let original = marker(&blobs);
        // As a copy of the database in another place finds itself.
        app.sql("UPDATE installation SET database_identity = '1:1'").await;
        let refused = pm(app, &["gc"]).await;
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("the database is a copy, or was moved"), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("PM_STORAGE_ADOPT"), "{}", stderr(&refused));
        assert_eq!(marker(&blobs), original);
        // Deleting the copy's data does not give the store away either.
        let deleted = pm(app, &["migrate", "fresh", "--yes"]).await;
        assert_eq!(code(&deleted), 2, "{}", stderr(&deleted));
        assert!(stderr(&deleted).contains("belongs to installation"), "{}", stderr(&deleted));
        assert_eq!(marker(&blobs), original);
    }

    async fn a_moved_database_keeps_its_blob_store_when_somebody_says_so(app: &TestApp) {
        let product = ready_product(app).await;
        let blobs = app.directory().join("data/blobs");
        let original = marker(&blobs);
        app.sql("UPDATE installation SET database_identity = '1:1'").await;
        let gc = ["gc", "--dry-run"];
        assert_eq!(code(&pm(app, &gc).await), 2);
        // Two processes at once come to one answer.
        let mut environment = app.environment.clone();
        environment.insert("PM_STORAGE_ADOPT".into(), "true".into());
        let started = [(); 2].map(|()| {
            let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pm"));
            command.env_clear().envs(&environment).current_dir(app.directory()).args(gc);
            tokio::task::spawn_blocking(move || command.output().expect("pm starts"))
        });
        for adopting in started {
            let adopting = adopting.await.unwrap();
            assert_eq!(code(&adopting), 0, "{}", stderr(&adopting));
        }
        let own = marker(&blobs);
        assert_ne!((&own["installation"], &own["store"]), (&original["installation"], &original["store"]));
        let listed = pm(app, &gc).await;
        assert_eq!(code(&listed), 0, "it needs no setting any more: {}", stderr(&listed));
        let shown = pm(app, &["product", "get", &product["id"].to_string()]).await;
        assert_eq!(code(&shown), 0, "{}", stderr(&shown));
        // Another installation's database that still names the store is refused.
        app.sql("UPDATE installation SET id = 'ffffffffffffffffffffffffffffffff', blob_store = 'before'").await;
        let refused = pm(app, &gc).await;
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
    }

    async fn a_backup_of_another_installation_is_replaced_only_on_request(app: &TestApp) {
        ready_product(app).await;
        let directory = path(&app.directory().join("backup"));
        let first = pm(app, &["backup", &directory]).await;
        assert_eq!(code(&first), 0, "{}", stderr(&first));
        app::run(app.setup, async |other: &TestApp| {
            let manifest = || fs::read_to_string(Path::new(&directory).join("manifest.json")).unwrap();
            let before = manifest();
            let refused = pm(other, &["backup", &directory]).await;
            assert_eq!(code(&refused), 1, "{}", stderr(&refused));
            assert!(stderr(&refused).contains("backup of installation"), "{}", stderr(&refused));
            assert!(stderr(&refused).contains("--replace"), "{}", stderr(&refused));
            assert_eq!(manifest(), before);
            let replaced = pm(other, &["backup", &directory, "--replace"]).await;
            assert_eq!(code(&replaced), 0, "{}", stderr(&replaced));
            assert!(manifest().contains(other.app.catalog.installation().as_str()));
        })
        .await;
        assert_eq!(code(&pm(app, &["backup", &directory]).await), 1);
    }
}
