//! Without the blob store products are read and created; requests that need it get 503.

use std::time::{Duration, Instant};

use super::{eventually, readiness, try_again};
use crate::{
    api::{
        set_ups::{a_product_goes_its_way, on_s3},
        uploads::upload,
    },
    support::{Origin, Setup, TestApp, app, images, on_both_setups, proxy::Proxy, s3::S3Server},
};

async fn images_come_back_with_their_store(setup: Setup) {
    on_s3(setup, async |app: &TestApp, _: &S3Server, proxy: &Proxy| {
        let product = a_product_goes_its_way(app).await;
        let path = product["compressed_product_images"][0].as_str().unwrap();
        let etag = app.get(path).await.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(readiness(app).await, (200, vec![]));

        proxy.cut();
        let began = Instant::now();
        assert_eq!(try_again(app.get(path).await).await, "storage_unavailable");
        let asked = app.client.get(app.url(path)).header("If-None-Match", etag).send().await.unwrap();
        assert_eq!(try_again(asked).await, "storage_unavailable");
        assert!(began.elapsed() < Duration::from_secs(30), "the responses took {:?}", began.elapsed());
        assert_eq!(app.product(&product["id"]).await, product, "products are read without their images");
        let down = eventually("a store that is down", async || {
            let (status, down) = readiness(app).await;
            (status == 503).then_some(down)
        });
        assert_eq!(down.await, ["storage"]);

        let origin = Origin::start().await;
        origin.serve("/b.png", "image/png", images::png(30, 20));
        let late = app.create(&[origin.url("/b.png")]).await["id"].clone();
        app.drain().await;
        let image = app.product(&late).await["images"][0].clone();
        assert_eq!(image["status"], "pending", "it is tried again later: {image}");
        assert_eq!(image["error"]["code"], "storage_unavailable");

        proxy.restore();
        assert_eq!(app.get(path).await.status(), 200);
        eventually("a store that is up", async || (readiness(app).await.0 == 200).then_some(())).await;
        app.let_time_pass().await;
        app.drain().await;
        assert_eq!(app.product(&late).await["status"], "ready");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn products_are_readable_while_s3_is_down_embedded() {
    images_come_back_with_their_store(Setup::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn products_are_readable_while_s3_is_down_full() {
    images_come_back_with_their_store(Setup::Full).await;
}

/// An unmounted disk has no blobs, which is no reason to fail an image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_does_not_fail_while_the_blob_directory_is_missing() {
    app::run(Setup::Embedded, async |app: &TestApp| {
        let product = app.create(&[]).await;
        assert_eq!(upload(app, &product["id"], &[("a.png", &images::png(40, 30))]).await.status, 202);
        let (blobs, moved) = (app.directory().join("data/blobs"), app.directory().join("moved"));
        std::fs::rename(&blobs, &moved).unwrap();
        std::fs::create_dir(&blobs).unwrap();
        app.drain().await;
        let image = app.product(&product["id"]).await["images"][0].clone();
        assert_eq!((&image["status"], &image["error"]["code"]), (&"pending".into(), &"storage_unavailable".into()));

        std::fs::remove_dir_all(&blobs).unwrap();
        std::fs::rename(&moved, &blobs).unwrap();
        app.let_time_pass().await;
        app.drain().await;
        let product = app.product(&product["id"]).await;
        assert_eq!(product["status"], "ready");
        let rendition = product["compressed_product_images"][0].as_str().unwrap();
        assert_eq!(app.get(rendition).await.status(), 200);
        std::fs::rename(&blobs, &moved).unwrap();
        std::fs::create_dir(&blobs).unwrap();
        assert_eq!(try_again(app.get(rendition).await).await, "storage_unavailable");
    })
    .await;
}

on_both_setups! {
    /// The process that marked the store may have died before it recorded the store in the database.
    async fn a_store_marked_for_this_installation_is_accepted(app: &TestApp) {
        let stores = "SELECT count(*) FROM installation WHERE blob_store IS NOT NULL";
        app.sql("UPDATE installation SET blob_store = NULL").await;
        app.another().await;
        assert_eq!(app.number(stores).await, 1);
    }
}
