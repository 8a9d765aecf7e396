//! Uploaded originals: returned byte for byte to their user, and never public.

use http::StatusCode;
use pm::{
    blobs::BlobKey,
    domain::{ImageSource, NewProduct, ProductDraft},
};
use serde_json::{Value, json};

use super::{problem, uploads::upload, wire};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

/// Creates a product with this uploaded file, ready.
async fn uploaded(app: &TestApp, file: &[u8]) -> Value {
    let id = app.create(&[]).await["id"].clone();
    let answer = upload(app, &id, &[("telephone.jpg", file)]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    app.drain().await;
    let product = app.product(&id).await;
    assert_eq!(product["status"], "ready", "{product}");
    product
}

fn original(product: &Value) -> &str {
    product["product_images"][0].as_str().unwrap()
}

/// Returns every link to a rendition in a product's JSON.
fn public_links(product: &Value) -> Vec<String> {
    let image = &product["images"][0];
    let made = image["renditions"].as_array().unwrap().iter();
    let by_key = made.clone().map(|made| made["url"].as_str().unwrap().to_owned());
    let preset = |made: &Value| made["preset"].as_str().unwrap().to_owned();
    let by_preset = made.map(|made| format!("/products/{}/images/{}/{}", product["id"], image["id"], preset(made)));
    let largest = product["compressed_product_images"].as_array().unwrap().iter();
    by_key.chain(by_preset).chain(largest.map(|link| link.as_str().unwrap().to_owned())).collect()
}

/// Creates a product whose image is a file stored by an older version.
async fn stored_by_an_older_program(app: &TestApp, file: &[u8]) -> (Value, BlobKey) {
    let key = app.app.blobs.put(file.to_vec().into(), "jpg").await.unwrap();
    let draft = ProductDraft {
        user_id: Some("seller".into()),
        product_name: Some("From before".into()),
        product_price: Some("1".into()),
        product_images: vec![ImageSource::Stored(key.to_string())],
        ..ProductDraft::default()
    };
    let new = NewProduct::parse(draft, app.app.catalog.policy()).unwrap();
    let product = app.app.catalog.create(new, None).await.unwrap();
    // As the server does every 2 s.
    app.app.catalog.look_for_plain_originals().await.unwrap();
    app.drain().await;
    (app.product(&json!(product.id)).await, key)
}

on_both_setups! {
    async fn public_responses_contain_no_location_of_an_image(app: &TestApp) {
        let file = images::jpeg_with_place(800, 600);
        assert!(images::tells_the_place(&file), "the uploaded file contains the place");
        let product = uploaded(app, &file).await;
        let links = public_links(&product);
        assert!(links.len() >= 8, "{links:?}");
        for link in links {
            let answer = wire::get(app, &link).await;
            assert_eq!(answer.status, 200, "{link}: {}", answer.text());
            assert!(!images::tells_the_place(&answer.body), "{link} leaks the place");
        }
        let plain = BlobKey::for_bytes(&file, "jpg").unwrap();
        for key in [plain.clone(), plain.as_original()] {
            problem(&wire::get(app, &format!("/images/{key}")).await, 404, "not_found", key.as_str());
            let tag = [("If-None-Match", format!("\"{}\"", key.sha256()))];
            let tag = tag.each_ref().map(|(name, value)| (*name, value.as_str()));
            problem(&wire::get_with(app, &format!("/images/{key}"), &tag).await, 404, "not_found", "a known tag");
        }
        assert!(!product.to_string().contains(plain.sha256()), "the product does not name the file");
    }

    async fn an_original_is_returned_unchanged_and_is_not_cached(app: &TestApp) {
        let file = images::jpeg_with_place(300, 200);
        let product = uploaded(app, &file).await;
        let link = original(&product);
        assert_eq!(link, format!("/products/{}/images/{}/original", product["id"], product["images"][0]["id"]));
        assert_eq!(product["images"][0]["source_url"], link);
        let answer = wire::get(app, link).await;
        assert_eq!((answer.status, answer.body == file), (200, true));
        assert_eq!(answer.header("cache-control"), "private, no-store");
        assert_eq!(answer.header("content-type"), "image/jpeg");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'; sandbox");
        assert_eq!(answer.header("cross-origin-resource-policy"), "");
        for header in ["X-Forwarded-For", "Forwarded", "Via"] {
            let passed_on = wire::get_with(app, link, &[(header, "for=192.0.2.7")]).await;
            problem(&passed_on, 403, "forbidden", header);
        }
        let part = wire::get_with(app, link, &[("Range", "bytes=0-1")]).await;
        assert_eq!((part.status, &part.body[..]), (206, &file[..2]));
        assert_eq!(app.client.head(app.url(link)).send().await.unwrap().status(), StatusCode::OK);
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let fetched = app.create(&[origin.url("/a.png")]).await;
        let image = &fetched["images"][0]["id"];
        for (path, what) in [
            (format!("/products/{}/images/{image}/original", fetched["id"]), "it comes from an address"),
            (format!("/products/{}/images/{image}/original", product["id"]), "an image of another product"),
            (format!("/products/{}/images/999999/original", product["id"]), "no image"),
            (format!("/products/x/images/{image}/original"), "no number"),
        ] {
            problem(&wire::get(app, &path).await, 404, "not_found", what);
        }
    }

    async fn an_original_is_deleted_with_its_image(app: &TestApp) {
        let file = images::jpeg_with_place(300, 200);
        let product = uploaded(app, &file).await;
        let rendition = product["compressed_product_images"][0].as_str().unwrap();
        let path = format!("/products/{}", product["id"]);
        assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 204);
        let key = BlobKey::for_bytes(&file, "jpg").unwrap();
        for gone in [original(&product).to_owned(), format!("/images/{key}"), format!("/images/{}", key.as_original())] {
            problem(&wire::get(app, &gone).await, 404, "not_found", &gone);
        }
        assert_eq!(wire::get(app, rendition).await.status, 200, "pages may still show it");
    }

    async fn a_rendition_identical_to_an_upload_is_served(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(800, 600));
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        app.drain().await;
        let first = app.product(&id).await;
        let link = first["compressed_product_images"][0].as_str().unwrap();
        let rendition = wire::get(app, link).await.body;
        let second = uploaded(app, &rendition).await;
        assert_eq!(wire::get(app, original(&second)).await.body, rendition);
        assert_eq!(wire::get(app, link).await.body, rendition);
        let path = format!("/products/{}", second["id"]);
        assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 204);
        assert_eq!(wire::get(app, link).await.body, rendition);
    }

    async fn a_product_written_back_unchanged_keeps_its_images(app: &TestApp) {
        let product = uploaded(app, &images::jpeg(300, 200)).await;
        let path = format!("/products/{}", product["id"]);
        let patch = async |images: Value| {
            let body = json!({"product_images": images}).to_string();
            wire::send(app.address, "PATCH", &path, &[("Content-Type", "application/json")], body.as_bytes()).await
        };
        assert_eq!(patch(product["product_images"].clone()).await.json(), product);
        let key = BlobKey::for_bytes(&images::jpeg(300, 200), "jpg").unwrap();
        let earlier = patch(json!([format!("/images/{key}")])).await;
        assert_eq!(earlier.json(), product, "the link that it had in earlier versions");
        problem(&patch(json!(["/products/1/images/99/original"])).await, 422, "validation", "no image of its own");
        let twice = patch(json!([original(&product), original(&product)])).await.json();
        assert_eq!(twice["images"][0]["id"], product["images"][0]["id"]);
        let second = twice["product_images"][1].as_str().unwrap();
        assert_ne!(second, original(&product));
        assert_eq!(wire::get(app, second).await.body, images::jpeg(300, 200));
    }

    async fn an_original_stored_by_an_older_version_is_not_public(app: &TestApp) {
        let file = images::jpeg_with_place(700, 500);
        let (product, key) = stored_by_an_older_program(app, &file).await;
        let link = format!("/images/{key}");
        problem(&wire::get(app, &link).await, 404, "not_found", "an original");
        assert_eq!(wire::get(app, original(&product)).await.body, file);
        for link in public_links(&product) {
            let answer = wire::get(app, &link).await;
            assert_eq!((answer.status, images::tells_the_place(&answer.body)), (200, false), "{link}");
        }
        let path = format!("/products/{}", product["id"]);
        let body = json!({"product_images": [link]}).to_string();
        let patched =
            wire::send(app.address, "PATCH", &path, &[("Content-Type", "application/json")], body.as_bytes()).await;
        assert_eq!(patched.json(), product, "its old link names the same image");
        let other = app.another().await;
        assert!(!other.catalog.is_public(&key).await.unwrap(), "every process knows");
        assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 204);
        problem(&wire::get(app, &link).await, 404, "not_found", "an original whose product is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_authentication_originals_are_served_only_on_loopback() {
    for (name, value, base) in
        [("PM_PUBLIC_URL", "https://shop.example", "https://shop.example"), ("PM_LISTEN", "0.0.0.0:0", "")]
    {
        app::run_with(Setup::Embedded, &[(name, value)], async |app: &TestApp| {
            let product = uploaded(app, &images::jpeg_with_place(300, 200)).await;
            let link = original(&product).strip_prefix(base).unwrap();
            assert!(link.starts_with("/products/"), "{link}");
            problem(&wire::get(app, link).await, 403, "forbidden", name);
        })
        .await;
    }
}

async fn a_private_upload_is_resized(app: &TestApp) {
    // Larger than the largest preset, so that the variant is made from the original.
    let product = uploaded(app, &images::jpeg_with_place(2400, 600)).await;
    let image = pm::domain::ImageId(product["images"][0]["id"].as_i64().unwrap());
    let path = app.app.signed_address(image, "w=2200,format=png").unwrap();
    let answer = wire::get(app, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(image::load_from_memory(&answer.body).unwrap().width(), 2200);
    assert!(!images::tells_the_place(&answer.body));
}

const URL_KEY: (&str, &str) = ("PM_URL_KEY", "a key of at least thirty-two characters");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_upload_is_resized_embedded() {
    app::run_with(Setup::Embedded, &[URL_KEY], a_private_upload_is_resized).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_upload_is_resized_full() {
    app::run_with(Setup::Full, &[URL_KEY], a_private_upload_is_resized).await;
}
