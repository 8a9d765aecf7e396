//! A blob store belongs to one installation, and stays its own after interrupted commands.

use std::fs;

use serde_json::Value;

use super::{code, pm, stderr};
use crate::support::{Setup, TestApp, app, on_both_setups};

/// Returns the marker file of the store.
fn marker(app: &TestApp) -> Value {
    serde_json::from_slice(&fs::read(app.directory().join("data/blobs/installation.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_does_not_adopt_the_store_of_another_installation() {
    app::run(Setup::Embedded, async |first: &TestApp| {
        app::run_with(Setup::Embedded, &[("PM_STORAGE_ADOPT", "true")], async |second: &TestApp| {
            let before = marker(first);
            let store = format!("file://{}", first.directory().join("data/blobs").display());
            let refused = pm(second, &["gc", "--storage-url", &store]).await;
            assert_eq!(code(&refused), 2, "{}", stderr(&refused));
            assert!(stderr(&refused).contains("belongs to installation"), "{}", stderr(&refused));
            assert_eq!(marker(first), before);
        })
        .await;
    })
    .await;
}

on_both_setups! {
    async fn a_refused_deletion_leaves_the_store_to_its_installation(app: &TestApp) {
        app.sql("UPDATE installation SET needs_program = '99.1.0'").await;
        app.sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)").await;
        let refused = pm(app, &["migrate", "fresh", "--yes"]).await;
        assert_ne!(code(&refused), 0, "{}", stderr(&refused));
        app.sql("UPDATE installation SET needs_program = '0.1.0'").await;
        app.sql("DELETE FROM seaql_migrations WHERE version = 'm9999_future'").await;
        let listed = pm(app, &["product", "list"]).await;
        assert_eq!(code(&listed), 0, "{}", stderr(&listed));
    }

    async fn an_interrupted_deletion_leaves_the_store_to_its_next_installation(app: &TestApp) {
        let before = marker(app);
        let path = app.directory().join("data/blobs/installation.json");
        let mut released = before.clone();
        released["released"] = true.into();
        fs::write(&path, released.to_string()).unwrap();
        let listed = pm(app, &["product", "list"]).await;
        assert_eq!((code(&listed), marker(app)), (0, before.clone()), "{}", stderr(&listed));

        // The data were deleted, and no installation has claimed the store yet.
        fs::write(&path, released.to_string()).unwrap();
        app.sql("UPDATE installation SET blob_store = NULL, id = 'ffffffffffffffffffffffffffffffff'").await;
        let listed = pm(app, &["product", "list"]).await;
        assert_eq!(code(&listed), 0, "{}", stderr(&listed));
        assert_eq!(marker(app)["installation"], "ffffffffffffffffffffffffffffffff");
        assert_ne!(marker(app)["store"], before["store"]);
        assert_eq!(code(&pm(app, &["product", "list"]).await), 0);
    }
}
