//! `pm gc` removes unreferenced blobs, and none that is about to be referenced.

use std::{fs, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use pm::{
    catalog::{Error, Outcome, Settlement},
    code::ErrorCode,
    domain::{Content, Facts, ImageSource, NewProduct, ProductDraft, ProductId, Rendition},
    maintenance::Mode,
};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;

use super::{code, doctor, failed, file_of, json as printed_json, keys, make_old, pm, stderr};
use crate::{
    api::set_ups::on_s3,
    support::{Origin, Setup, TestApp, images, on_both_setups, proxy::Proxy, s3::S3Server},
};

fn outcome(key: &str) -> Outcome {
    let facts = Facts {
        width: 1,
        height: 1,
        format: "png".into(),
        bytes: 1,
        thumbhash: String::new(),
        dominant_color: "#000000".into(),
        perceptual_hash: None,
    };
    let made =
        Rendition { preset: "large".into(), format: "png".into(), width: 1, height: 1, bytes: 4, key: key.into() };
    let content = Content { sha256: "content".into(), pipeline_fingerprint: "any".into() };
    Outcome { facts, warnings: Vec::new(), renditions: vec![made], presets: None, content }
}

on_both_setups! {
    async fn gc_removes_orphans_and_keeps_young_and_referenced_blobs(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        app.drain().await;
        let used = keys(&app.product(&id).await);
        used.iter().for_each(|key| make_old(app, key.as_str()));
        let mut orphans = Vec::new();
        for number in 0..70 {
            let key = app.app.blobs.put(Bytes::from(format!("orphan {number}")), "png").await.unwrap();
            make_old(app, key.as_str());
            orphans.push(key);
        }
        let young = app.app.blobs.put(Bytes::from("young"), "png").await.unwrap();
        let unfinished = format!("{young}#1");
        fs::write(file_of(app, &unfinished), "yo").unwrap();
        make_old(app, &unfinished);

        let would = printed_json(&pm(app, &["gc", "--dry-run", "-o", "json"]).await);
        let bytes = 10 * 8 + 60 * 9;
        let expected = |dry_run| json!({"dry_run": dry_run, "removed": 70, "bytes": bytes, "young": 1, "unfinished": 1});
        assert_eq!(would, expected(true));
        assert!(app.app.blobs.exists(&orphans[0]).await.unwrap());

        assert_eq!(printed_json(&pm(app, &["gc", "-o", "json"]).await), expected(false));
        for key in &orphans {
            assert!(!app.app.blobs.exists(key).await.unwrap());
        }
        assert!(app.app.blobs.exists(&young).await.unwrap() && !file_of(app, &unfinished).exists());
        assert_eq!(doctor(app, &[]).await["healthy"], true, "every rendition has its blob");

        app.sql(&format!("DELETE FROM products WHERE id = {id}")).await;
        app.app.health.cache.invalidate(&[ProductId(id.as_i64().unwrap())]).await.unwrap();
        assert_eq!(failed(&doctor(app, &[]).await), ["orphans"]);
        let output = pm(app, &["gc", "-q"]).await;
        let mut removed: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        let mut expected: Vec<_> = used.iter().map(ToString::to_string).collect();
        removed.sort();
        expected.sort();
        assert_eq!(removed, expected);
    }

    async fn a_settlement_without_its_blob_is_refused_and_the_image_retried(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        let claimed = app.claim().await.unwrap();
        let key = app.app.blobs.put(Bytes::from("made"), "png").await.unwrap();
        make_old(app, key.as_str());
        assert_eq!(code(&pm(app, &["gc"]).await), 0);
        let refused = app.app.catalog.settle(&claimed, Settlement::Ready(outcome(key.as_str()))).await;
        assert!(matches!(&refused, Err(Error::BlobGone { key: gone }) if gone == key.as_str()), "{refused:?}");
        assert_eq!(app.product(&id).await["images"][0]["status"], "processing", "nothing was stored");
        let again = Settlement::Retry(ErrorCode::StorageUnavailable, "made again".into(), Duration::ZERO);
        app.app.catalog.settle(&claimed, again).await.unwrap();
        app.drain().await;
        let product = app.product(&id).await;
        assert_eq!(product["status"], "ready", "{product}");
        assert_eq!(doctor(app, &[]).await["healthy"], true);
    }

    async fn a_worker_remakes_a_rendition_removed_before_settlement(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(1600, 1200));
        let (stopper, worker) = app.start_worker().await;
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        let connection = app.app.database.read();
        let sql = "SELECT id FROM jobs WHERE decoding = 1 AND state = 'running'";
        let decoding = Statement::from_string(connection.get_database_backend(), sql);
        while connection.query_all_raw(decoding.clone()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Settlements wait from here on.
        let removal = app.app.database.begin_removal().await.unwrap().unwrap();
        let blobs = &app.app.blobs;
        let made = loop {
            let made: Vec<_> = blobs.list().try_collect().await.unwrap();
            if made.len() == 4 {
                break made;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        blobs.delete(&made[0].key).await.unwrap();
        removal.end().await.unwrap();

        let product = app.settled(&id).await;
        stopper.cancel();
        worker.await.unwrap();
        assert_eq!((&product["status"], &product["images"][0]["attempts"]), (&json!("ready"), &json!(2)), "{product}");
        assert!(keys(&product).contains(&made[0].key));
        assert_eq!(doctor(app, &[]).await["healthy"], true);
    }

    async fn a_product_without_its_uploaded_blob_is_refused(app: &TestApp) {
        let key = app.app.blobs.put(Bytes::from("an image"), "png").await.unwrap();
        app.app.blobs.delete(&key).await.unwrap();
        let draft = ProductDraft {
            user_id: Some("u".into()),
            product_name: Some("n".into()),
            product_price: Some("1".into()),
            product_images: vec![ImageSource::Stored(key.to_string())],
            ..ProductDraft::default()
        };
        let new = NewProduct::parse(draft, app.app.catalog.policy()).unwrap();
        let refused = app.app.catalog.create(new, None).await;
        assert!(matches!(refused, Err(Error::BlobGone { .. })), "{refused:?}");
        assert_eq!(app.get_json("/products").await["items"], json!([]));
    }

    async fn gc_runs_in_parallel_but_not_beside_a_backup(app: &TestApp) {
        for number in 0..40 {
            let key = app.app.blobs.put(Bytes::from(format!("orphan {number}")), "png").await.unwrap();
            make_old(app, key.as_str());
        }
        let other = app.another().await;
        let hold = other.database.hold_blobs().await.unwrap();
        let refused = pm(app, &["gc"]).await;
        assert_eq!(code(&refused), 1);
        assert!(stderr(&refused).contains("a backup or a restore is running") && stderr(&refused).contains("hint: "));
        hold.release().await.unwrap();
        let collect = async |app: &pm::app::App| {
            app.catalog.collect(Mode::Remove, &mut |_| {}, &mut |_| {}).await.unwrap().removed
        };
        let (one, two) = tokio::join!(collect(&app.app), collect(&other));
        assert_eq!(one + two, 40, "{one} and {two}");
    }
}

async fn goes_on_s3(setup: Setup) {
    on_s3(setup, async |app: &TestApp, server: &S3Server, _: &Proxy| {
        let used = {
            let origin = Origin::start().await;
            origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
            let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
            app.drain().await;
            keys(&app.product(&id).await)
        };
        let orphan = app.app.blobs.put(Bytes::from("orphan"), "png").await.unwrap();
        let old = std::time::SystemTime::now() - super::LONG_AGO;
        for key in used.iter().chain([&orphan]) {
            let file = fs::File::options()
                .write(true)
                .open(server.directory().join("shop/images").join(key.as_str()))
                .unwrap();
            file.set_modified(old).unwrap();
        }
        assert_eq!(printed_json(&pm(app, &["gc", "-o", "json"]).await)["removed"], 1);
        assert!(!app.app.blobs.exists(&orphan).await.unwrap());
        assert_eq!(doctor(app, &[]).await["healthy"], true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_removes_orphans_from_s3_embedded() {
    goes_on_s3(Setup::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gc_removes_orphans_from_s3_full() {
    goes_on_s3(Setup::Full).await;
}
