//! Images by preset name, in the best format that the client accepts.

use serde_json::Value;

use super::{problem, wire};
use crate::support::{self, Origin, Setup, TestApp, images, on_both_setups};

const CHROMIUM: &str = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
const OLD_SAFARI: &str = "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5";

/// Creates a product with one image whose preset `hero` exists in three formats.
async fn with_three_formats(test: impl AsyncFnOnce(&TestApp, Value)) {
    let presets = r#"hero = {edge = 256, formats = ["jpeg", "avif", "webp"]}"#;
    support::app::run_with(Setup::Embedded, &[("PM_PRESETS", presets)], async |app| {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(640, 480));
        let product = app.create(&[origin.url("/a.jpg")]).await;
        app.drain().await;
        let product = app.product(&product["id"]).await;
        assert_eq!(product["status"], "ready", "{product}");
        test(app, product).await;
    })
    .await;
}

fn path(product: &Value, preset: &str) -> String {
    format!("/products/{}/images/{}/{preset}", product["id"], product["images"][0]["id"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_the_best_format_that_it_accepts() {
    with_three_formats(async |app, product| {
        let path = path(&product, "hero");
        for (accept, kind) in [
            (CHROMIUM, "image/avif"),
            ("image/webp,*/*;q=0.8", "image/webp"),
            (OLD_SAFARI, "image/jpeg"),
            ("*/*", "image/jpeg"),
        ] {
            let answer = wire::get_with(app, &path, &[("Accept", accept)]).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{accept}");
            assert_eq!(answer.header("vary"), "Accept");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            let expected = product["images"][0]["renditions"].as_array().unwrap().iter();
            let sizes: Vec<_> = expected.map(|rendition| rendition["bytes"].as_u64().unwrap()).collect();
            assert!(sizes.contains(&(answer.body.len() as u64)), "{} of {sizes:?}", answer.body.len());
            let tag = answer.header("etag").to_owned();
            let again = wire::get_with(app, &path, &[("Accept", accept), ("If-None-Match", &tag)]).await;
            assert_eq!((again.status, again.header("vary")), (304, "Accept"));
        }
        let none = wire::get_with(app, &path, &[("Accept", "text/html")]).await;
        problem(&none, 406, "not_acceptable", "a page is asked for");
    })
    .await;
}

on_both_setups! {
    async fn an_image_in_progress_has_a_retry_after(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(640, 480));
        let product = app.create(&[origin.url("/a.jpg")]).await;
        let answer = wire::get(app, &path(&product, "small")).await;
        problem(&answer, 503, "not_ready_yet", "before it is ready");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
        assert_eq!(answer.header("cache-control"), "no-store");
        app.drain().await;
        let answer = wire::get(app, &path(&product, "small")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "image/webp"));
        let part = wire::get_with(app, &path(&product, "small"), &[("Range", "bytes=0-9")]).await;
        assert_eq!((part.status, part.body.len()), (206, 10));
        // While it is reprocessed, the old rendition is served.
        app.sql("UPDATE images SET status = 'pending'").await;
        app.app.health.cache.invalidate(&[pm::domain::ProductId(product["id"].as_i64().unwrap())]).await.unwrap();
        assert_eq!(wire::get(app, &path(&product, "small")).await.status, 200);
    }

    async fn a_missing_preset_or_image_is_named(app: &TestApp) {
        let origin = Origin::start().await;
        let product = app.create(&[origin.url("/missing.jpg")]).await;
        app.drain().await;
        for (path, part) in [
            (path(&product, "small"), "failed; its `error` has the reason"),
            (path(&product, "gigantic"), "preset \"gigantic\" not found"),
            (format!("/products/{}/images/999999/small", product["id"]), "image 999999"),
            (format!("/products/{}/images/x/small", product["id"]), "must be a number"),
            ("/products/999999/images/1/small".into(), "product 999999"),
        ] {
            let answer = wire::get(app, &path).await;
            let details = problem(&answer, 404, "not_found", &path);
            assert!(details["detail"].as_str().unwrap().contains(part), "{path}: {details}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_replaces_a_pending_image_when_enabled() {
    support::app::run_with(Setup::Embedded, &[("PM_PLACEHOLDER", "thumbhash")], async |app| {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(640, 480));
        let product = app.create(&[origin.url("/a.jpg")]).await;
        assert_eq!(wire::get(app, &path(&product, "small")).await.status, 503, "nothing is known of it yet");
        app.drain().await;
        app.sql("DELETE FROM renditions WHERE preset = 'small'").await;
        app.sql("UPDATE images SET status = 'pending'").await;
        app.app.health.cache.invalidate(&[pm::domain::ProductId(product["id"].as_i64().unwrap())]).await.unwrap();
        let answer = wire::get(app, &path(&product, "small")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "image/png"), "{}", answer.text());
        assert_eq!((answer.header("cache-control"), answer.header("retry-after")), ("no-store", "2"));
        let preview = image::load_from_memory(&answer.body).unwrap();
        assert!(preview.width() <= 32 && preview.height() <= 32);
    })
    .await;
}
