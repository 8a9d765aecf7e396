//! `pm doctor` finds every broken invariant, names the rows or files, and reports no false alarm on a busy system.

use std::fs;

use bytes::Bytes;
use pm::{
    cache::{Entry, Lookup},
    db::Write,
    domain::ProductId,
    maintenance::{Depth, Invariant},
};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use super::{code, doctor, failed, file_of, keys, make_old, pm};
use crate::support::{Origin, Setup, TestApp, images, on_both_setups};

async fn ready_product(app: &TestApp) -> Value {
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
    let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
    app.drain().await;
    let product = app.product(&id).await;
    assert_eq!(product["status"], "ready", "{product}");
    product
}

/// Returns the only failed check. A test that holds SQLite's write lock also fails the check of writes.
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let failed: Vec<_> = failed(report).into_iter().filter(|failed| *failed != "database").collect();
    assert_eq!(failed, [check], "{report}");
    report["checks"].as_array().unwrap().iter().find(|found| found["check"] == check).unwrap()
}

/// Breaks a row that a running process would repair within seconds, and prevents the repair until the result is
/// dropped.
async fn held(app: &TestApp, break_it: &str, rows: &str) -> Write {
    loop {
        app.sql(break_it).await;
        let write = app.app.database.begin().await.unwrap();
        let lock = if app.app.database.is_sqlite() { "" } else { " FOR UPDATE" };
        if !app.app.database.is_sqlite() {
            write.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
        }
        let statement = Statement::from_string(write.get_database_backend(), format!("SELECT id FROM {rows}{lock}"));
        if !write.query_all_raw(statement).await.unwrap().is_empty() {
            return write;
        }
    }
}

on_both_setups! {
    async fn doctor_reports_a_busy_system_as_healthy(app: &TestApp) {
        let origin = Origin::start().await;
        let (stopper, worker) = app.start_worker().await;
        let mut ids = Vec::new();
        for number in 0..12_u16 {
            let path = format!("/{number}.jpg");
            origin.serve(&path, "image/jpeg", images::jpeg(900 + number, 700));
            ids.push(app.create(&[origin.url(&path), origin.url("/status/404")]).await["id"].clone());
            app.product(&ids[0]).await;
        }
        let report = doctor(app, &[]).await;
        assert_eq!(report["healthy"], true, "{report}");
        for id in &ids {
            app.settled(id).await;
        }
        stopper.cancel();
        worker.await.unwrap();
        let report = doctor(app, &[]).await;
        assert_eq!(report["healthy"], true, "{report}");
        let names: Vec<_> = report["checks"].as_array().unwrap().iter().map(|check| &check["check"]).collect();
        let invariants: Vec<_> = Invariant::ALL.iter().map(|invariant| invariant.name()).collect();
        assert_eq!(names[names.len() - invariants.len()..], invariants);
        assert!(report["checks"].as_array().unwrap().iter().all(|check| check["count"] == 0 && check["examples"] == json!([])));
        let details = report.to_string();
        assert!(details.contains("24 images: each is final") && details.contains("48 blobs exist"), "{details}");
    }

    async fn doctor_finds_images_without_a_job_and_with_two_jobs(app: &TestApp) {
        let product = ready_product(app).await;
        let image = product["images"][0]["id"].clone();
        // Rows that are changed directly are still cached, which would be another finding.
        app.app.health.cache.invalidate(&[ProductId(product["id"].as_i64().unwrap())]).await.unwrap();
        app.sql(&format!("UPDATE images SET status = 'processing' WHERE id = {image}")).await;
        let report = doctor(app, &["--quick"]).await;
        assert_eq!((&finding(&report, "images")["count"], &finding(&report, "images")["examples"]), (&json!(1), &json!([image.to_string()])));

        app.sql(&format!("UPDATE images SET status = 'ready' WHERE id = {image}")).await;
        app.sql(&format!("UPDATE jobs SET state = 'queued', run_at = 9000000000000000 WHERE image_id = {image}")).await;
        assert_eq!(finding(&doctor(app, &["--quick"]).await, "images")["examples"], json!([image.to_string()]));

        app.sql(&format!("UPDATE images SET status = 'pending', generation = 2 WHERE id = {image}")).await;
        assert_eq!(finding(&doctor(app, &["--quick"]).await, "images")["count"], 1, "its job is of an earlier run");
        app.sql(&format!("UPDATE images SET generation = 1 WHERE id = {image}")).await;
        assert_eq!(doctor(app, &[]).await["healthy"], true);
    }

    async fn doctor_finds_missing_truncated_and_changed_blobs(app: &TestApp) {
        let product = ready_product(app).await;
        let (gone, cut, changed) = (&keys(&product)[0], &keys(&product)[1], &keys(&product)[2]);
        let mut bytes = fs::read(file_of(app, changed.as_str())).unwrap();
        bytes[10] ^= 1;
        fs::write(file_of(app, changed.as_str()), bytes).unwrap();
        let report = doctor(app, &["--quick"]).await;
        assert_eq!(report["healthy"], true, "only reading the bytes finds a changed byte: {report}");
        assert_eq!(finding(&doctor(app, &[]).await, "blobs")["examples"], json!([changed.as_str()]));

        fs::remove_file(file_of(app, gone.as_str())).unwrap();
        fs::write(file_of(app, cut.as_str()), "short").unwrap();
        for (words, count) in [(&["--quick"][..], 2), (&[][..], 3)] {
            let report = doctor(app, words).await;
            let found = finding(&report, "blobs");
            assert_eq!(found["count"], count, "{found}");
            for key in [gone, cut] {
                assert!(found["examples"].as_array().unwrap().contains(&json!(key.as_str())), "{found}");
            }
        }
        let table = pm(app, &["doctor"]).await;
        assert_eq!(code(&table), 1);
        assert!(String::from_utf8_lossy(&table.stdout).contains(gone.as_str()));
    }

    async fn doctor_finds_a_lost_upload(app: &TestApp) {
        let file = app.directory().join("cup.png");
        fs::write(&file, images::png(40, 30)).unwrap();
        let words = ["product", "add", "--user-id", "u", "--name", "n", "--price", "1", "--image", "cup.png"];
        assert_eq!(code(&pm(app, &words).await), 0);
        app.drain().await;
        assert_eq!(doctor(app, &[]).await["healthy"], true);
        let key = pm::blobs::BlobKey::for_bytes(&fs::read(&file).unwrap(), "png").unwrap().as_original();
        fs::remove_file(file_of(app, key.as_str())).unwrap();
        assert_eq!(finding(&doctor(app, &[]).await, "sources")["examples"], json!([key.as_str()]));
    }

    async fn doctor_finds_old_orphans_and_unfinished_files(app: &TestApp) {
        let product = ready_product(app).await;
        make_old(app, keys(&product)[0].as_str());
        let orphan = app.app.blobs.put(Bytes::from("orphan"), "png").await.unwrap();
        let unfinished = format!("{orphan}#1");
        fs::write(file_of(app, &unfinished), "orp").unwrap();
        assert_eq!(doctor(app, &[]).await["healthy"], true, "both are young");
        make_old(app, &unfinished);
        assert_eq!(finding(&doctor(app, &[]).await, "unfinished")["examples"], json!([unfinished]));
        fs::remove_file(file_of(app, &unfinished)).unwrap();
        make_old(app, orphan.as_str());
        assert_eq!(finding(&doctor(app, &[]).await, "orphans")["examples"], json!([orphan.as_str()]));
    }

    async fn doctor_finds_an_expired_lease(app: &TestApp) {
        app.create(&["https://example.com/a.jpg".into()]).await;
        let claimed = app.claim().await.unwrap();
        let expire = format!("UPDATE jobs SET lease_until = 0 WHERE id = {} AND state = 'running'", claimed.job.id);
        let held = held(app, &expire, "jobs WHERE state = 'running' AND lease_until = 0").await;
        let report = doctor(app, &[]).await;
        assert_eq!(finding(&report, "leases")["examples"], json!([claimed.job.id.to_string()]));
        drop(held);
    }

    async fn doctor_finds_a_stale_cached_product(app: &TestApp) {
        let product = ready_product(app).await;
        let id = ProductId(product["id"].as_i64().unwrap());
        let cache = &app.app.health.cache;
        for entry in [Entry::Value(Bytes::from("\"0123456789abcdef\"{}")), Entry::Absent] {
            // The absence of a product is cached for only seconds, so it is no finding.
            cache.invalidate(&[id]).await.unwrap();
            let Lookup::Miss(fill) = cache.lookup(id).await else { panic!("it was dropped") };
            cache.fill(fill, id, entry.clone()).await;
            let found = app.app.catalog.inspect(Invariant::Entries, Depth::Full, &mut |_| {}).await.unwrap();
            let expected = if entry == Entry::Absent { vec![] } else { vec![id.to_string()] };
            assert_eq!(found.examples, expected, "{found:?}");
            if app.setup == Setup::Full && !expected.is_empty() {
                assert_eq!(finding(&doctor(app, &[]).await, "entries")["count"], 1, "another process sees it, too");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_unpublished_jobs_and_pending_invalidations() {
    crate::support::app::run(Setup::Full, async |app: &TestApp| {
        let image = app.create(&["https://example.com/a.jpg".into()]).await["images"][0]["id"].clone();
        let make_due = format!("UPDATE jobs SET dispatched_at = NULL, run_at = 0 WHERE image_id = {image}");
        let job = held(app, &make_due, "jobs WHERE run_at = 0 AND dispatched_at IS NULL").await;
        assert_eq!(finding(&doctor(app, &[]).await, "outbox")["count"], 1);
        drop(job);

        let note = "INSERT INTO cache_invalidation (product_id, created_at, cache_schema) VALUES (1, 5, 2)";
        let change = held(app, note, "cache_invalidation WHERE created_at = 5").await;
        assert!(finding(&doctor(app, &[]).await, "invalidations")["count"].as_u64().unwrap() >= 1);
        drop(change);
    })
    .await;
}
