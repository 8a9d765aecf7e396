//! The same bytes in many products: processed once, stored once, and never confused with others.

use pm::{
    blobs::BlobKey,
    catalog::{AtRisk, Deduplication, Error, Selection, Which},
    domain::{Content, ProductId},
};
use serde_json::{Value, json};

use crate::support::{Origin, TestApp, images, on_both_setups};

/// Replaces the first image's color; an image that has it was copied, not processed.
const MARK: &str = "#0bad00";

async fn ready_and_marked(app: &TestApp, url: String) -> Value {
    let id = app.create(&[url]).await["id"].clone();
    app.drain().await;
    assert_eq!(app.product(&id).await["status"], "ready");
    app.sql(&format!("UPDATE images SET dominant_color = '{MARK}' WHERE product_id = {id}")).await;
    id
}

async fn drained(app: &TestApp, url: String) -> Value {
    let id = app.create(&[url]).await["id"].clone();
    app.drain().await;
    app.product(&id).await["images"][0].clone()
}

fn content(bytes: &str) -> Content {
    Content { sha256: bytes.into(), pipeline_fingerprint: "any".into() }
}

fn keys(image: &Value) -> Vec<BlobKey> {
    let renditions = image["renditions"].as_array().unwrap().iter();
    renditions
        .map(|made| BlobKey::parse(made["url"].as_str().unwrap().trim_start_matches("/images/")).unwrap())
        .collect()
}

on_both_setups! {
    async fn the_same_bytes_are_processed_once_for_all_users(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
        origin.serve("/copy.jpg", "image/jpeg", images::jpeg(700, 500));
        origin.serve("/other.jpg", "image/jpeg", images::jpeg(700, 501));
        let first = ready_and_marked(app, origin.url("/a.jpg")).await;
        let copy = drained(app, origin.url("/copy.jpg")).await;
        assert_eq!((&copy["status"], &copy["dominant_color"]), (&json!("ready"), &json!(MARK)));
        assert_eq!(copy["renditions"], app.product(&first).await["images"][0]["renditions"], "they share their blobs");
        assert_eq!(copy["perceptual_hash"].as_str().unwrap().len(), 16);
        let other = drained(app, origin.url("/other.jpg")).await;
        assert_ne!(other["dominant_color"], MARK, "one more row makes another image");
    }

    async fn other_settings_make_other_renditions_of_the_same_bytes(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
        ready_and_marked(app, origin.url("/a.jpg")).await;
        app.sql("UPDATE images SET recipe = 'of settings that were in force before'").await;
        assert_ne!(drained(app, origin.url("/a.jpg")).await["dominant_color"], MARK);
    }

    async fn a_lost_blob_is_made_again(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
        let first = ready_and_marked(app, origin.url("/a.jpg")).await;
        let lost = keys(&app.product(&first).await["images"][0])[0].clone();
        app.app.blobs.delete(&lost).await.unwrap();
        assert_ne!(drained(app, origin.url("/a.jpg")).await["dominant_color"], MARK);
        assert!(app.app.blobs.exists(&lost).await.unwrap());
    }

    async fn reprocessing_one_preset_copies_only_that_preset_of_a_duplicate(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
        let first = ready_and_marked(app, origin.url("/a.jpg")).await;
        app.sql(&format!("UPDATE images SET recipe = 'old' WHERE dominant_color = '{MARK}'")).await;
        let second = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        app.drain().await;
        // All renditions but the thumbnail have other sizes than their blobs, so the image does not count as undamaged.
        app.sql(&format!("UPDATE renditions SET bytes = 1 WHERE image_id = (SELECT id FROM images WHERE product_id = {first})")).await;
        let selection = Selection {
            products: vec![ProductId(first.as_i64().unwrap())],
            status: Which::Ready,
            presets: Some(vec!["thumb".into()]),
            ..Selection::default()
        };
        app.app.catalog.reprocess(&selection, None, 100, None).await.unwrap();
        app.drain().await;
        let made = app.product(&first).await["images"][0]["renditions"].clone();
        let sizes: Vec<_> = made.as_array().unwrap().iter().map(|made| made["bytes"] == 1).collect();
        assert_eq!(sizes, [true, true, true, false], "{made}");
        app.sql(&format!("DELETE FROM products WHERE id = {second}")).await;
        let third = drained(app, origin.url("/a.jpg")).await;
        assert!(third["renditions"].as_array().unwrap().iter().all(|made| made["bytes"] != 1), "{third}");
    }

    async fn two_workers_never_process_the_same_bytes_at_once(app: &TestApp) {
        for _ in 0..2 {
            app.create(&["https://example.com/a.jpg".into()]).await;
        }
        let (first, second) = (app.claim().await.unwrap().job, app.claim().await.unwrap().job);
        let catalog = &app.app.catalog;
        assert!(matches!(catalog.deduplicate(&first, &content("a"), false).await, Ok(Deduplication::Decode)));
        assert!(catalog.begin_decoding(&first, &content("a"), AtRisk::Worker).await.unwrap());
        assert!(matches!(catalog.deduplicate(&second, &content("a"), false).await, Ok(Deduplication::Wait)));
        assert!(!catalog.begin_decoding(&second, &content("a"), AtRisk::Worker).await.unwrap(), "not even if it asked before");
        assert!(matches!(catalog.deduplicate(&second, &content("b"), false).await, Ok(Deduplication::Decode)));

        // The first worker dies.
        let leases = catalog.job_leases().await.unwrap();
        let lease = leases.into_iter().find(|lease| lease.id == first.id.0).expect("it is held");
        catalog.take_jobs(&[pm::domain::Lapsed { lease, holder_ended: true }]).await.unwrap();
        assert!(catalog.begin_decoding(&second, &content("a"), AtRisk::Worker).await.unwrap());
        assert!(matches!(catalog.begin_decoding(&first, &content("c"), AtRisk::Worker).await, Err(Error::LeaseLost)));
    }

    async fn many_products_with_one_image_become_ready_together(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(1600, 1200));
        let mut ids = Vec::new();
        for _ in 0..24 {
            ids.push(app.create(&[origin.url("/a.jpg")]).await["id"].clone());
        }
        let (stopper, worker) = app.start_worker().await;
        let mut shared = Vec::new();
        for id in &ids {
            let product = app.settled(id).await;
            assert_eq!(product["status"], "ready", "{product}");
            shared.push(keys(&product["images"][0]));
        }
        shared.dedup();
        assert_eq!(shared.len(), 1, "all of them share their blobs");
        stopper.cancel();
        worker.await.unwrap();
    }
}
