//! Invalid and oversized images: each fails with a code, and the worker survives.

use serde_json::Value;

use crate::support::{Origin, TestApp, images, on_both_setups};

async fn ends_as(app: &TestApp, name: &str, bytes: Vec<u8>) -> Value {
    let origin = Origin::start().await;
    // The content decides, not the origin's Content-Type.
    origin.serve("/image.jpg", "image/jpeg", bytes);
    let product = app.create(&[origin.url("/image.jpg")]).await;
    app.drain().await;
    let image = app.product(&product["id"]).await["images"][0].clone();
    assert!(image["status"] == "failed" || image["status"] == "ready", "{name} is {image}");
    image
}

on_both_setups! {
    async fn a_source_that_is_not_an_image_fails_with_its_code(app: &TestApp) {
        let svg = br#"<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>"#;
        for (name, bytes, code) in [
            ("html", b"<!doctype html><html><body>Not found</body></html>".to_vec(), "unsupported_format"),
            ("svg", svg.to_vec(), "unsupported_format"),
            ("nothing", Vec::new(), "empty"),
            ("noise", (0..5_000_u32).map(|n| (n * 7_919 % 251) as u8).collect(), "unsupported_format"),
            ("a bomb of 60,000 by 60,000 pixels", images::huge_png(60_000, 60_000), "too_many_pixels"),
            ("200 million pixels", images::huge_png(16_000, 12_500), "too_many_pixels"),
            ("a damaged PNG", images::huge_png(300, 200), "undecodable"),
        ] {
            let image = ends_as(app, name, bytes).await;
            assert_eq!(image["status"], "failed", "{name}");
            assert_eq!(image["error"]["code"], code, "{name}: {image}");
            assert_eq!(image["attempts"], 1, "{name} is not tried again");
        }
        let good = ends_as(app, "a good one", images::jpeg(64, 64)).await;
        assert_eq!(good["status"], "ready", "the worker lives on");
    }

    async fn forty_megabytes_are_too_large(app: &TestApp) {
        let image = ends_as(app, "40 MB", vec![0xff; 40_000_000]).await;
        assert_eq!(image["error"]["code"], "too_large");
    }

    async fn a_truncated_image_is_never_ready(app: &TestApp) {
        let mut photo = images::jpeg(800, 600);
        photo.truncate(photo.len() / 2);
        let image = ends_as(app, "half a JPEG", photo).await;
        if image["status"] == "ready" {
            assert!(image["warnings"].as_array().unwrap().contains(&"truncated".into()), "{image}");
        } else {
            assert_eq!(image["error"]["code"], "undecodable");
        }
    }
}
