//! A product's images: uploads, URLs, removal, reprocessing.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use image::ImageFormat;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{problem, wire, wrong_fields};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

const BOUNDARY: &str = "a-boundary";
const MULTIPART: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=a-boundary");

/// Returns a form with these files.
fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

pub async fn upload(app: &TestApp, id: &Value, files: &[(&str, &[u8])]) -> wire::Answer {
    wire::send(app.address, "POST", &format!("/products/{id}/images"), &[MULTIPART], &form(files)).await
}

/// Returns the number of blobs in the store.
async fn blobs(app: &TestApp) -> usize {
    app.app.blobs.list().try_collect::<Vec<_>>().await.unwrap().len()
}

/// Waits a few seconds until the store has no blob.
async fn no_blob_is_left(app: &TestApp) {
    for _ in 0..500 {
        if blobs(app).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} blobs are left", blobs(app).await);
}

fn places(product: &Value) -> Vec<(i64, i64)> {
    let images = product["images"].as_array().unwrap();
    images.iter().map(|image| (image["id"].as_i64().unwrap(), image["position"].as_i64().unwrap())).collect()
}

on_both_setups! {
    async fn uploaded_files_are_appended_to_the_images(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        app.product(&id).await;
        let (one, other) = (images::jpeg(800, 600), images::png(40, 30));
        let answer = upload(app, &id, &[("one.jpg", &one), ("other.txt", &other)]).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let added = answer.json();
        let added = added["images"].as_array().unwrap();
        let shown: Vec<_> = added.iter().map(|image| (&image["position"], &image["status"])).collect();
        assert_eq!(shown, [(&json!(1), &json!("pending")), (&json!(2), &json!("pending"))]);
        let product = app.product(&id).await;
        assert_eq!((&product["version"], &product["status"]), (&json!(2), &json!("processing")));
        assert_eq!(product["images"].as_array().unwrap()[1..], added[..]);
        let link = product["product_images"][1].as_str().unwrap();
        assert!(link.starts_with("/products/") && link.ends_with("/original"), "{link}");
        assert_eq!(wire::get(app, link).await.body, one);
        app.drain().await;
        let product = app.product(&id).await;
        assert_eq!(product["status"], "ready", "{product}");
        assert_eq!(product["images"][2]["width"], 40);

        // The link names the uploaded file when the images are reordered.
        let order = json!({"product_images": [product["product_images"][2], product["product_images"][1]]}).to_string();
        let headers = [("Content-Type", "application/json")];
        let path = format!("/products/{id}");
        let changed = wire::send(app.address, "PATCH", &path, &headers, order.as_bytes()).await.json();
        let ids = places(&product);
        assert_eq!(places(&changed), [(ids[2].0, 0), (ids[1].0, 1)]);
        assert_eq!(changed["status"], "ready");
        assert_eq!(changed["images"][0]["renditions"], product["images"][2]["renditions"]);
    }

    async fn one_invalid_file_refuses_the_whole_upload(app: &TestApp) {
        let before = app.create(&[]).await;
        let id = &before["id"];
        let good = images::png(40, 30);
        let answer = upload(app, id, &[("good.png", &good), ("notes.txt", b"no image at all")]).await;
        let details = problem(&answer, 422, "validation", "a text among images");
        assert_eq!(wrong_fields(&details), ["file[1]"]);
        assert!(details["errors"][0]["message"].as_str().unwrap().contains("notes.txt"), "{details}");
        problem(&upload(app, id, &[]).await, 422, "validation", "no file");
        problem(&upload(app, id, &[("empty.png", b"")]).await, 422, "validation", "an empty file");
        let many: Vec<(&str, &[u8])> = vec![("good.png", &good); 33];
        problem(&upload(app, id, &many).await, 422, "validation", "too many files");
        problem(&upload(app, &json!(99), &[("good.png", &good)]).await, 404, "not_found", "no product");
        let path = format!("/products/{id}/images");
        let mut cut = form(&[("good.png", &good)]);
        cut.truncate(cut.len() - 20);
        let answer = wire::send(app.address, "POST", &path, &[MULTIPART], &cut).await;
        problem(&answer, 400, "bad_request", "a form that ends in its midst");
        let answer = wire::send(app.address, "POST", &path, &[("Content-Type", "multipart/form-data")], b"x").await;
        problem(&answer, 400, "bad_request", "no boundary");
        let answer = wire::send(app.address, "POST", &path, &[("Content-Type", "image/png")], &good).await;
        problem(&answer, 415, "unsupported_media_type", "a bare file");
        assert_eq!(blobs(app).await, 0, "the valid files of refused requests are deleted");
        assert_eq!(app.product(id).await, before, "nothing refers to anything of it");
        assert_eq!(app.drain().await, 0);
    }

    async fn a_form_has_at_most_32_inputs_without_a_file(app: &TestApp) {
        let before = app.create(&[]).await;
        let (id, good) = (&before["id"], images::png(40, 30));
        let mut files: Vec<(&str, &[u8])> = vec![("", b""); 32];
        files.push(("good.png", &good));
        assert_eq!(upload(app, id, &files).await.status, 202);
        files.insert(0, ("", b""));
        let details = problem(&upload(app, id, &files).await, 422, "validation", "33 empty parts");
        assert_eq!(wrong_fields(&details), ["file"]);
        let details = problem(&upload(app, id, &vec![("", &b""[..]); 2_000]).await, 422, "validation", "2,000 of them");
        assert!(details["detail"].as_str().unwrap().contains("32 parts without a file"), "{details}");
        assert_eq!(app.product(id).await["images"].as_array().map(Vec::len), Some(1));
    }

    async fn a_body_with_a_content_coding_is_415(app: &TestApp) {
        let before = app.create(&[]).await;
        let good = images::png(40, 30);
        let coding = |value| ("Content-Encoding", value);
        let path = format!("/products/{}/images", before["id"]);
        let headers = [MULTIPART, coding("identity"), coding("gzip")];
        let answer = wire::send(app.address, "POST", &path, &headers, &form(&[("a.png", &good)])).await;
        problem(&answer, 415, "unsupported_media_type", "an upload");
        let headers = [("Content-Type", "application/json"), coding("identity"), coding("gzip")];
        let answer = wire::send(app.address, "POST", "/products", &headers, b"{}").await;
        problem(&answer, 415, "unsupported_media_type", "JSON");
    }

    async fn a_product_has_at_most_32_images(app: &TestApp) {
        let before = app.create(&vec!["https://example.com/a.jpg".to_owned(); 31]).await;
        let good = images::png(40, 30);
        let answer = upload(app, &before["id"], &[("a.png", &good), ("b.png", &good)]).await;
        assert_eq!(wrong_fields(&problem(&answer, 422, "validation", "33 images")), ["product_images"]);
        assert_eq!(blobs(app).await, 0);
        assert_eq!(upload(app, &before["id"], &[("a.png", &good)]).await.status, 202);
        problem(&upload(app, &before["id"], &[("a.png", &good)]).await, 422, "validation", "the 33rd");
        assert_eq!(blobs(app).await, 1, "the same bytes are referred to");
    }

    async fn a_refused_upload_keeps_the_blob_of_another_upload_with_the_same_bytes(app: &TestApp) {
        let full = app.create(&vec!["https://example.com/a.jpg".to_owned(); 32]).await["id"].clone();
        for number in 0..12 {
            let file = images::png(40, 30 + number);
            let id = app.create(&[]).await["id"].clone();
            let files = [("a.png", file.as_slice())];
            let (refused, accepted) = tokio::join!(upload(app, &full, &files), upload(app, &id, &files));
            assert_eq!((refused.status, accepted.status), (422, 202), "{} {}", refused.text(), accepted.text());
            let link = app.product(&id).await["product_images"][0].as_str().unwrap().to_owned();
            assert_eq!(wire::get(app, &link).await.body, file);
        }
        assert_eq!(blobs(app).await, 12);
    }

    async fn files_of_every_format_are_accepted(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        let files = [
            ("a.jpg", images::jpeg(40, 30)),
            ("a.png", images::png(40, 30)),
            ("a.webp", images::written_as(ImageFormat::WebP)),
            ("a.gif", images::written_as(ImageFormat::Gif)),
            ("a.bmp", images::written_as(ImageFormat::Bmp)),
            ("a.tiff", images::tiff()),
        ];
        for (name, bytes) in &files {
            let answer = upload(app, &id, &[(name, bytes)]).await;
            assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        }
        app.drain().await;
        let product = app.product(&id).await;
        assert_eq!(product["status"], "ready", "{product}");
        for ((name, bytes), link) in files.iter().zip(product["product_images"].as_array().unwrap()) {
            assert_eq!(&wire::get(app, link.as_str().unwrap()).await.body, bytes, "{name}");
        }
    }

    async fn image_urls_are_added_as_json(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let id = app.create(&[]).await["id"].clone();
        let path = format!("/products/{id}/images");
        let one = wire::post(app, &path, json!({"url": origin.url("/a.png")}).to_string()).await;
        assert_eq!((one.status, one.json()["images"].as_array().map(Vec::len)), (202, Some(1)), "{}", one.text());
        let urls = json!({"urls": [origin.url("/a.png"), origin.url("/a.png")]}).to_string();
        assert_eq!(wire::post(app, &path, urls).await.json()["images"][1]["position"], 2);
        let wrong = wire::post(app, &path, r#"{"urls": ["ftp://a"], "colour": 1}"#).await;
        assert_eq!(wrong_fields(&problem(&wrong, 422, "validation", "wrong addresses")), ["colour", "urls[0]"]);
        app.drain().await;
        assert_eq!(app.product(&id).await["status"], "ready");
    }

    async fn removing_an_image_shifts_the_later_ones(app: &TestApp) {
        let urls = ["a", "b", "c"].map(|name| format!("https://example.com/{name}.jpg"));
        let before = app.create(&urls).await;
        let ids = places(&before);
        let path = format!("/products/{}/images/{}", before["id"], ids[1].0);
        let _claimed = app.claim().await.expect("a worker is at one of them");
        assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 204);
        let after = app.product(&before["id"]).await;
        assert_eq!(places(&after), [(ids[0].0, 0), (ids[2].0, 1)]);
        assert_eq!(after["product_images"], json!([urls[0], urls[2]]));
        problem(&wire::send(app.address, "DELETE", &path, &[], b"").await, 404, "not_found", "it is gone");
        let other = app.create(&[]).await["id"].clone();
        let foreign = format!("/products/{other}/images/{}", ids[0].0);
        problem(&wire::send(app.address, "DELETE", &foreign, &[], b"").await, 404, "not_found", "another product's");
        for wrong in ["/products/x/images/1", "/products/1/images/x", "/products/99/images/1"] {
            problem(&wire::send(app.address, "DELETE", wrong, &[], b"").await, 404, "not_found", wrong);
        }
    }

    async fn an_image_is_reprocessed(app: &TestApp) {
        let origin = Origin::start().await;
        let id = app.create(&[origin.url("/later.png"), origin.url("/status/404")]).await["id"].clone();
        app.drain().await;
        let before = app.product(&id).await;
        assert_eq!(before["status"], "failed");
        origin.serve("/later.png", "image/png", images::png(64, 48));
        let image = places(&before)[0].0;
        let path = format!("/products/{id}/images/{image}/reprocess");
        let answer = wire::post(app, &path, "").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!((&answer.json()["id"], &answer.json()["status"]), (&json!(image), &json!("pending")));
        assert_eq!(app.product(&id).await["status"], "processing");
        let version = app.product(&id).await["version"].clone();
        assert_eq!(wire::post(app, &path, "").await.json()["status"], "pending", "it is already pending");
        assert_eq!(app.product(&id).await["version"], version);
        assert_eq!(app.drain().await, 1, "the other image is left alone");
        assert_eq!(app.product(&id).await["images"][0]["status"], "ready");
        problem(&wire::post(app, "/products/1/images/99/reprocess", "").await, 404, "not_found", "no such image");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_over_the_limit_is_refused_by_name_during_the_upload() {
    app::run_with(Setup::Embedded, &[("PM_FETCH_MAX_BYTES", "20000")], async |app: &TestApp| {
        let id = app.create(&[]).await["id"].clone();
        let answer = upload(app, &id, &[("big.png", &vec![0; 20_001])]).await;
        let details = problem(&answer, 413, "too_large", "a large file");
        assert!(details["detail"].as_str().unwrap().contains("big.png"), "{details}");
        let good = images::png(40, 30);
        let answer = upload(app, &id, &[("good.png", &good), ("big.png", &vec![0; 20_001])]).await;
        problem(&answer, 413, "too_large", "a large file behind another one");
        assert_eq!(blobs(app).await, 0, "the file before it is deleted");
        let several: Vec<_> = (0..8).map(|_| images::png(40, 30)).collect();
        let files: Vec<(&str, &[u8])> = several.iter().map(|bytes| ("small.png", bytes.as_slice())).collect();
        assert_eq!(upload(app, &id, &files).await.status, 202, "the limit is for each file");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_upload_leaves_no_data() {
    app::run_with(Setup::Embedded, &[], async |app: &TestApp| {
        let before = app.create(&[]).await;
        let body = form(&[("a.png", &images::png(40, 30)), ("b.png", &images::png(50, 30))]);
        let head = format!(
            "POST /products/{}/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            before["id"],
            MULTIPART.1,
            body.len()
        );
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body[..body.len() - 40]).await.unwrap();
        while blobs(app).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        no_blob_is_left(app).await;
        // A later request is served, and the product is unchanged.
        let answer = upload(app, &before["id"], &[("c.png", &images::png(30, 30))]).await;
        assert_eq!(answer.status, 202);
        let product = app.product(&before["id"]).await;
        assert_eq!((product["images"].as_array().map(Vec::len), &product["version"]), (Some(1), &json!(2)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_upload_is_aborted() {
    app::run_with(Setup::Embedded, &[], async |app: &TestApp| {
        let id = app.create(&[]).await["id"].clone();
        let head = format!(
            "POST /products/{id}/images HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {}\r\nContent-Length: 99999\r\n\r\n",
            MULTIPART.1
        );
        let begun = std::time::Instant::now();
        let mut request = head.into_bytes();
        request.extend(form(&[("a.png", &images::png(40, 30)), ("b.png", b"x")]));
        // The end of the form is missing.
        request.truncate(request.len() - 10);
        let answer = wire::exchange(app.address, &request).await;
        problem(&answer, 408, "deadline_exceeded", "a client that sends nothing more");
        assert_eq!(blobs(app).await, 0, "the complete file of the form is deleted");
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    })
    .await;
}
