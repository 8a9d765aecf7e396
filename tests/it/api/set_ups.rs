//! Other combinations of engines than the two usual ones.

use serde_json::{Value, json};

use super::{problem, wire};
use crate::support::{Origin, Setup, TestApp, app, images, proxy::Proxy, s3::S3Server};

/// Returns the engines that `/readyz` names: database, cache, queue, storage.
async fn engines(app: &TestApp) -> Vec<String> {
    let ready = app.get_json("/readyz").await;
    let engine = |component: &Value| component["engine"].as_str().unwrap().to_owned();
    ready["components"].as_array().unwrap().iter().map(engine).collect()
}

/// Tests everything from the first request to the image, with a consumer.
pub async fn a_product_goes_its_way(app: &TestApp) -> Value {
    let origin = Origin::start().await;
    origin.serve("/photo.jpg", "image/jpeg", images::jpeg(900, 600));
    let (stopper, worker) = app.start_worker().await;
    let id = app.create(&[origin.url("/photo.jpg"), origin.url("/status/404")]).await["id"].clone();
    assert_eq!(app.product(&id).await["id"], id);
    let product = app.settled(&id).await;
    stopper.cancel();
    worker.await.unwrap();
    let shown: Vec<_> = product["images"].as_array().unwrap().iter().map(|image| &image["status"]).collect();
    assert_eq!(shown, [&json!("ready"), &json!("failed")], "{product}");
    for rendition in product["images"][0]["renditions"].as_array().unwrap() {
        let image = wire::get(app, rendition["url"].as_str().unwrap()).await;
        assert_eq!((image.status, json!(image.body.len())), (200, rendition["bytes"].clone()));
    }
    assert_eq!(app.get_json("/products?status=failed").await["items"], json!([product]));
    product
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_works_without_redis_and_rabbitmq() {
    let without = [("REDIS_URL", ""), ("RABBITMQ_URL", "")];
    app::run_with(Setup::Full, &without, async |app: &TestApp| {
        assert_eq!(engines(app).await, ["postgres", "off", "database", "disk"]);
        let product = a_product_goes_its_way(app).await;
        for _ in 0..2 {
            let read = wire::get(app, &format!("/products/{}", product["id"])).await;
            assert_eq!(read.header("x-cache"), "miss", "a cache of one process would not hear of another's commits");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_works_with_redis() {
    app::run_with(Setup::Full, &[("DATABASE_URL", ""), ("RABBITMQ_URL", "")], async |app: &TestApp| {
        assert_eq!(engines(app).await, ["sqlite", "redis", "database", "disk"]);
        let product = a_product_goes_its_way(app).await;
        let path = format!("/products/{}", product["id"]);
        wire::get(app, &path).await;
        assert_eq!(wire::get(app, &path).await.header("x-cache"), "hit");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_works_with_rabbitmq() {
    app::run_with(Setup::Full, &[("DATABASE_URL", ""), ("REDIS_URL", "")], async |app: &TestApp| {
        assert_eq!(engines(app).await, ["sqlite", "memory", "rabbitmq", "disk"]);
        a_product_goes_its_way(app).await;
    })
    .await;
}

/// Runs `test` with the images on an S3 server, under a prefix and behind a proxy.
pub async fn on_s3(setup: Setup, test: impl AsyncFnOnce(&TestApp, &S3Server, &Proxy)) {
    let server = S3Server::start().await;
    let proxy = Proxy::start(server.endpoint().trim_start_matches("http://")).await;
    let (storage, endpoint) = (format!("s3://{}/shop/images", server.bucket()), format!("http://{}", proxy.address()));
    let environment = server.environment();
    let mut settings: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings.extend([("PM_STORAGE_URL", storage.as_str()), ("AWS_ENDPOINT_URL", endpoint.as_str())]);
    app::run_with(setup, &settings, async |app: &TestApp| test(app, &server, &proxy).await).await;
}

async fn images_are_stored_on_s3(setup: Setup) {
    on_s3(setup, async |app: &TestApp, server: &S3Server, _: &Proxy| {
        assert_eq!(engines(app).await[3], "s3");
        let product = a_product_goes_its_way(app).await;
        let path = product["compressed_product_images"][0].as_str().unwrap();
        let key = path.strip_prefix("/images/").unwrap();
        let stored = std::fs::read(server.directory().join("shop/images").join(key)).expect("the object in the bucket");
        let whole = wire::get(app, path).await;
        assert_eq!(whole.body, stored);
        let part = wire::get_with(app, path, &[("Range", "bytes=-7")]).await;
        assert_eq!((part.status, part.body.as_slice()), (206, &stored[stored.len() - 7..]));
        let unchanged = wire::get_with(app, path, &[("If-None-Match", whole.header("etag"))]).await;
        assert_eq!(unchanged.status, 304);
        let unknown = pm::blobs::BlobKey::for_bytes(b"never stored", "jpg").unwrap();
        problem(&wire::get(app, &format!("/images/{unknown}")).await, 404, "not_found", "an unknown key");
        assert!(!app.directory().join("data/blobs").exists(), "nothing is kept on the disk beside");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_stored_on_s3_embedded() {
    images_are_stored_on_s3(Setup::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_stored_on_s3_full() {
    images_are_stored_on_s3(Setup::Full).await;
}
