//! Products that are deleted during processing.

use std::time::Duration;

use pm::{
    catalog::{AtRisk, Due, Error, Selection, Settlement, Which},
    code::ErrorCode,
    domain::{Content, ProductId},
};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::Value;

use crate::support::{Origin, TestApp, images, on_both_setups};

fn number(id: &Value) -> ProductId {
    ProductId(id.as_i64().unwrap())
}

/// Returns the number of rows in all tables that belong to products.
async fn rows(app: &TestApp) -> Vec<i64> {
    let connection = app.app.database.read();
    let mut counts = Vec::new();
    for table in ["products", "images", "renditions", "jobs", "job_attempts"] {
        let count = format!("SELECT count(*) AS count FROM {table}");
        let count = Statement::from_string(connection.get_database_backend(), count);
        counts.push(connection.query_one_raw(count).await.unwrap().unwrap().try_get("", "count").unwrap());
    }
    counts
}

on_both_setups! {
    async fn deleting_a_product_deletes_all_its_rows(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg"), origin.url("/status/500"), origin.url("/none.jpg")]).await["id"].clone();
        let kept = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        app.drain().await;
        let other = app.another().await;
        other.catalog.product_body(number(&id)).await.expect("it is in the other process's cache");
        app.product(&id).await;

        let unknown = ProductId(987_654);
        let deleted = app.app.catalog.delete(&[unknown, number(&id), number(&id)]).await.unwrap();
        assert_eq!(deleted, [number(&id)]);
        assert_eq!(app.get(&format!("/products/{id}")).await.status(), 404);
        assert!(matches!(other.catalog.product_body(number(&id)).await, Err(Error::NotFound { .. })));
        assert_eq!(rows(app).await, [1, 1, 4, 1, 0], "products, images, renditions, jobs, attempts");
        let list = app.get_json("/products").await;
        assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["id"]), (1, &kept));
        assert_eq!(app.get_json("/products?name=sample").await["items"].as_array().unwrap().len(), 1);
        assert!(app.app.catalog.delete(&[number(&id)]).await.unwrap().is_empty());
    }

    async fn a_worker_of_a_deleted_image_finds_its_job_gone(app: &TestApp) {
        let id = app.create(&["https://example.com/a.jpg".into()]).await["id"].clone();
        let claimed = app.claim().await.expect("a due job");
        let catalog = &app.app.catalog;
        catalog.delete(&[number(&id)]).await.unwrap();
        let content = Content { sha256: "a".into(), pipeline_fingerprint: "any".into() };
        assert!(!catalog.extend_lease(&claimed.job).await.unwrap());
        assert!(matches!(catalog.begin_decoding(&claimed.job, &content, AtRisk::Worker).await, Err(Error::LeaseLost)));
        for settlement in [
            Settlement::Fail(ErrorCode::Empty, "late".into()),
            Settlement::Retry(ErrorCode::TimedOut, "late".into(), Duration::ZERO),
            Settlement::Crash("late".into(), Duration::ZERO),
            Settlement::Release,
        ] {
            assert!(matches!(catalog.settle(&claimed, settlement).await, Err(Error::LeaseLost)));
        }
        assert_eq!(app.let_workers_die().await, 0);
        assert!(catalog.claim(Due::any()).await.unwrap().claimed().is_none());
        assert_eq!(rows(app).await, [0; 5]);
    }

    async fn a_worker_continues_after_its_image_is_deleted(app: &TestApp) {
        let origin = Origin::start().await;
        for path in ["/slow.jpg", "/good.jpg"] {
            origin.serve(path, "image/jpeg", images::jpeg(320, 200));
        }
        origin.hold("/slow.jpg");
        let doomed = app.create(&[origin.url("/slow.jpg")]).await["id"].clone();
        let waiting = app.create(&[origin.url("/slow.jpg")]).await["id"].clone();
        app.app.catalog.delete(&[number(&waiting)]).await.unwrap();
        let (stopper, worker) = app.start_worker().await;
        origin.wait_for_hits("/slow.jpg", 1).await;
        app.app.catalog.delete(&[number(&doomed)]).await.unwrap();
        origin.release("/slow.jpg");
        let good = app.create(&[origin.url("/good.jpg")]).await["id"].clone();
        assert_eq!(app.settled(&good).await["status"], "ready");
        stopper.cancel();
        worker.await.unwrap();
        assert_eq!(rows(app).await[..2], [1, 1]);
    }

    async fn deleting_never_deadlocks_with_workers(app: &TestApp) {
        let origin = Origin::start().await;
        let mut ids = Vec::new();
        for _ in 0..24 {
            let images: Vec<_> = (0..4).map(|n| origin.url(&format!("/none-{n}.jpg"))).collect();
            ids.push(number(&app.create(&images).await["id"]));
        }
        let catalog = &app.app.catalog;
        let all = Selection { status: Which::All, ..Selection::default() };
        let done = std::sync::atomic::AtomicBool::new(false);
        let goes_on = || !done.load(std::sync::atomic::Ordering::Relaxed);
        let work = async || {
            while goes_on() {
                let found = catalog.claim(Due::any()).await.expect("a claim meets no deadlock");
                let Some(claimed) = found.claimed() else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                match catalog.settle(&claimed, Settlement::Fail(ErrorCode::SourceNotFound, "none".into())).await {
                    Ok(()) | Err(Error::LeaseLost) => {}
                    Err(error) => panic!("a result cannot be stored: {error:?}"),
                }
            }
        };
        let run_again = async {
            while goes_on() {
                catalog.reprocess(&all, None, 500, None).await.expect("another run meets no deadlock");
                let retried = catalog.retry_all_dead(None, pm::clock::Timestamp::now(), 20).await;
                retried.expect("a retry meets no deadlock");
            }
        };
        let delete = async {
            for some in ids.chunks(3) {
                tokio::time::sleep(Duration::from_millis(30)).await;
                assert_eq!(catalog.delete(some).await.expect("deleting meets no deadlock"), some);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        tokio::join!(work(), work(), work(), run_again, delete);
        assert_eq!(rows(app).await, [0; 5]);
    }
}
