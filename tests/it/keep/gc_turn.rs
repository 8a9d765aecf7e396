//! Periodic gc: once in each `PM_GC_EVERY`, in one process of the installation.

use std::time::Duration;

use bytes::Bytes;
use pm::{blobs::BlobKey, catalog::Error};

use super::{make_old, pm};
use crate::support::{Setup, TestApp, app, on_both_setups};

const HOUR: Duration = Duration::from_secs(3_600);

async fn orphan(app: &TestApp, content: &str) -> BlobKey {
    let key = app.app.blobs.put(Bytes::from(content.to_owned()), "png").await.unwrap();
    make_old(app, key.as_str());
    key
}

/// Sets the end of the last run to this long ago.
async fn let_last_run_be(app: &TestApp, ago: Duration) {
    let then = app.app.catalog.now().await.unwrap().minus(ago).0;
    app.sql(&format!("UPDATE installation SET gc_ended_at = {then}")).await;
}

on_both_setups! {
    async fn one_process_removes_orphans_once_in_each_period(app: &TestApp) {
        let key = orphan(app, "orphan").await;
        let young = app.app.blobs.put(Bytes::from("young"), "png").await.unwrap();
        let collect = async |app: &pm::app::App| app.catalog.collect_if_due(HOUR).await.unwrap();
        assert_eq!(collect(&app.app).await, None, "the first period begins with the first start");
        assert_eq!(collect(&app.app).await, None);
        let_last_run_be(app, HOUR / 2).await;
        assert_eq!(collect(&app.another().await).await, None, "a start is no reason for a run");
        let_last_run_be(app, 2 * HOUR).await;
        let other = app.another().await;
        let (one, two) = tokio::join!(collect(&app.app), collect(&other));
        let collected = one.xor(two).expect("one process of the two");
        assert_eq!((collected.removed, collected.bytes, collected.young), (1, 6, 1));
        assert!(!app.app.blobs.exists(&key).await.unwrap() && app.app.blobs.exists(&young).await.unwrap());
        assert_eq!(collect(&other).await, None);
        let_last_run_be(app, Duration::ZERO).await;
        app.sql("UPDATE installation SET gc_ended_at = gc_ended_at + 86400000000").await;
        assert!(collect(&app.app).await.is_some(), "a future time was written before the clock went back");
    }

    async fn the_gc_lease_of_a_dead_process_expires_and_gc_waits_for_a_backup(app: &TestApp) {
        let collect = async || app.app.catalog.collect_if_due(HOUR).await;
        assert_eq!(collect().await.unwrap(), None);
        let_last_run_be(app, 2 * HOUR).await;
        let now = app.app.catalog.now().await.unwrap().0;
        let until = now + 60_000_000;
        app.sql(&format!("UPDATE installation SET gc_lease_token = 'dead', gc_lease_until = {until}")).await;
        assert_eq!(collect().await.unwrap(), None, "another process has the turn");
        app.sql(&format!("UPDATE installation SET gc_lease_until = {now}")).await;
        let key = orphan(app, "orphan").await;
        let hold = app.another().await.database.hold_blobs().await.unwrap();
        let refused = collect().await;
        assert!(matches!(refused, Err(Error::Copying)), "{refused:?}");
        hold.release().await.unwrap();
        assert!(app.app.blobs.exists(&key).await.unwrap());
        assert_eq!(collect().await.unwrap(), None, "all processes wait after a run that failed");
        app.sql("UPDATE installation SET gc_lease_until = 0").await;
        assert_eq!(collect().await.unwrap().expect("its turn").removed, 1);
    }
}

async fn runs_unasked(setup: Setup) {
    app::run_with(setup, &[("PM_GC_EVERY", "1s")], async |app: &TestApp| {
        let key = orphan(app, "orphan").await;
        let mut metrics = String::new();
        for _ in 0..1_000 {
            metrics = app.get("/metrics").await.text().await.unwrap();
            // The counters belong to this process, whose other tests may have counted already.
            if !app.app.blobs.exists(&key).await.unwrap() && metrics.contains("pm_gc_runs_total{outcome=\"done\"}") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!app.app.blobs.exists(&key).await.unwrap(), "it was not removed");
        assert!(metrics.contains("pm_gc_runs_total{outcome=\"done\"}"), "{metrics}");
        assert!(metrics.contains("pm_gc_removed_blobs_total"), "{metrics}");
        let shown = pm(app, &["config", "-o", "csv"]).await;
        assert!(String::from_utf8_lossy(&shown.stdout).contains("gc_every,1s,the environment"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_runs_gc_periodically_embedded() {
    runs_unasked(Setup::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_runs_gc_periodically_full() {
    runs_unasked(Setup::Full).await;
}
