//! Successful processing of an image.

use image::GenericImageView as _;
use serde_json::{Value, json};

use crate::support::{Origin, images, on_both_setups};

fn rendition<'a>(image: &'a Value, preset: &str) -> &'a Value {
    image["renditions"].as_array().unwrap().iter().find(|made| made["preset"] == preset).unwrap()
}

on_both_setups! {
    async fn a_photograph_becomes_ready_with_every_preset(app: &TestApp) {
        let origin = Origin::start().await;
        let photo = images::jpeg(2400, 1600);
        origin.serve("/photo.jpg", "image/jpeg", photo.clone());
        let product = app.create(&[origin.url("/photo.jpg")]).await;
        assert_eq!(product["status"], "processing");
        assert_eq!(app.drain().await, 1);

        let product = app.product(&product["id"]).await;
        assert_eq!(product["status"], "ready", "{product}");
        let image = &product["images"][0];
        assert_eq!((&image["width"], &image["height"], &image["format"]), (&json!(2400), &json!(1600), &json!("jpeg")));
        assert_eq!(image["bytes"], photo.len());
        assert_eq!(image["error"], Value::Null);
        for (preset, format, width, height) in
            [("large", "jpeg", 2048, 1365), ("medium", "webp", 1024, 683), ("small", "webp", 512, 341), ("thumb", "jpeg", 160, 107)]
        {
            let made = rendition(image, preset);
            let response = app.get(made["url"].as_str().unwrap()).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], format!("image/{format}"));
            let bytes = response.bytes().await.unwrap();
            assert_eq!(made["bytes"], bytes.len());
            assert!(bytes.len() < photo.len(), "{preset} is larger than its source");
            assert_eq!((&made["format"], &made["width"], &made["height"]), (&json!(format), &json!(width), &json!(height)));
            if format == "webp" {
                let decoded = image::load_from_memory(&bytes).unwrap();
                assert_eq!(decoded.dimensions(), (width, height));
            }
        }
        assert_eq!(product["compressed_product_images"], json!([rendition(image, "large")["url"]]));
    }

    async fn the_product_read_right_after_shows_the_image(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(300, 200));
        let product = app.create(&[origin.url("/a.jpg")]).await;
        let path = format!("/products/{}", product["id"]);
        for _ in 0..2 {
            assert_eq!(app.get_json(&path).await["status"], "processing");
        }
        assert_eq!(app.get(&path).await.headers()["x-cache"], "hit");
        app.drain().await;
        assert_eq!(app.get_json(&path).await["status"], "ready", "the worker's write invalidated the cache");
    }

    async fn a_failed_download_does_not_affect_other_images(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/good.png", "image/png", images::png(64, 48));
        let missing = origin.url("/status/404");
        let product = app.create(&[origin.url("/good.png"), missing]).await;
        app.drain().await;
        let product = app.product(&product["id"]).await;
        assert_eq!(product["status"], "failed");
        assert_eq!(product["images"][0]["status"], "ready");
        assert_eq!(product["images"][1]["status"], "failed");
        assert_eq!(product["images"][1]["error"]["code"], "source_not_found");
        assert_eq!(product["compressed_product_images"].as_array().unwrap().len(), 1);
    }

    async fn the_same_image_is_stored_once(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(400, 300));
        let product = app.create(&[origin.url("/a.jpg"), origin.url("/a.jpg")]).await;
        app.drain().await;
        let product = app.product(&product["id"]).await;
        assert_eq!(product["images"][0]["renditions"], product["images"][1]["renditions"]);
    }

    async fn reprocessing_can_remake_one_preset(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(400, 300));
        let product = app.create(&[origin.url("/a.jpg")]).await;
        app.drain().await;
        let before = app.product(&product["id"]).await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(420, 300));
        let selection = pm::catalog::Selection {
            status: pm::catalog::Which::Ready,
            presets: Some(vec!["thumb".into()]),
            ..pm::catalog::Selection::default()
        };
        assert_eq!(app.app.catalog.count_reprocess(&selection).await.unwrap(), 1);
        let batch = app.app.catalog.reprocess(&selection, None, 100, Some("again")).await.unwrap();
        assert_eq!(batch.images.len(), 1);
        assert_eq!(app.product(&product["id"]).await["status"], "processing");
        app.drain().await;
        let after = app.product(&product["id"]).await;
        assert_eq!(after["status"], "ready");
        let urls = |product: &Value, preset: &str| rendition(&product["images"][0], preset)["url"].clone();
        assert_eq!(urls(&before, "large"), urls(&after, "large"), "the other presets are kept");
        assert_ne!(urls(&before, "thumb"), urls(&after, "thumb"), "the wanted preset is new");
    }

    async fn a_worker_keeps_renditions_of_unknown_presets(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(400, 300));
        let product = app.create(&[origin.url("/a.jpg")]).await;
        app.drain().await;
        let before = app.product(&product["id"]).await;
        let selection = pm::catalog::Selection {
            status: pm::catalog::Which::Ready,
            presets: Some(vec!["thumb".into()]),
            ..pm::catalog::Selection::default()
        };
        app.app.catalog.reprocess(&selection, None, 100, None).await.unwrap();
        app.sql(r#"UPDATE jobs SET payload = '{"kind":"process_image","v":1,"presets":["huge"]}' WHERE state = 'queued'"#)
            .await;
        app.drain().await;
        let after = app.product(&product["id"]).await;
        assert_eq!(after["images"][0]["renditions"], before["images"][0]["renditions"]);
        assert_eq!(after["images"][0]["status"], "pending", "another worker may know it");
    }

    async fn an_unknown_preset_is_refused_by_name(app: &TestApp) {
        let selection = pm::catalog::Selection { presets: Some(vec!["giant".into()]), ..pm::catalog::Selection::default() };
        let error = app.app.catalog.reprocess(&selection, None, 100, None).await.unwrap_err();
        assert!(error.to_string().contains("`giant` is unknown; presets: large, medium, small, thumb"), "{error}");
    }

    async fn an_uploaded_file_becomes_ready_without_a_download(app: &TestApp) {
        let source = app.app.catalog.store_source(images::jpeg(320, 240).into()).await.unwrap();
        let draft = pm::domain::ProductDraft {
            user_id: Some("seller".into()),
            product_name: Some("From a file".into()),
            product_price: Some("1".into()),
            product_images: vec![source],
            ..pm::domain::ProductDraft::default()
        };
        let new = pm::domain::NewProduct::parse(draft, app.app.catalog.policy()).unwrap();
        let product = app.app.catalog.create(new, None).await.unwrap();
        app.drain().await;
        let shown = app.product(&json!(product.id)).await;
        assert_eq!(shown["status"], "ready");
        assert_eq!(app.get(shown["product_images"][0].as_str().unwrap()).await.status(), 200);
    }
}
