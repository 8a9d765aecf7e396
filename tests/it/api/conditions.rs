//! Conditional requests: `If-Match` and `If-None-Match` on reads and writes, and the ETags that writes return.

use serde_json::{Value, json};

use super::{problem, wire};
use crate::support::{Origin, TestApp, images, on_both_setups};

const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn send(app: &TestApp, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> wire::Answer {
    let mut all = headers.to_vec();
    if !body.is_empty() {
        all.push(JSON);
    }
    wire::send(app.address, method, path, &all, body.as_bytes()).await
}

async fn tag_of(app: &TestApp, path: &str) -> String {
    let answer = wire::get(app, path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("etag").to_owned()
}

/// Creates a product with one image from the returned origin; also returns its path.
async fn product_with_an_image(app: &TestApp) -> (Value, String, Origin) {
    let origin = Origin::start().await;
    origin.serve("/a.png", "image/png", images::png(64, 48));
    let product = app.create(&[origin.url("/a.png")]).await;
    let path = format!("/products/{}", product["id"]);
    (product, path, origin)
}

on_both_setups! {
    async fn a_worker_that_finishes_between_get_and_patch_does_not_fail_the_patch(app: &TestApp) {
        let (_, path, _origin) = product_with_an_image(app).await;
        let read = tag_of(app, &path).await;
        assert!(app.drain().await > 0);
        let progress = wire::get_with(app, &path, &[("If-None-Match", &read)]).await;
        assert_eq!(progress.status, 200, "a reader sees the worker's progress");
        assert_eq!(progress.json()["status"], "ready");
        assert_ne!(progress.header("etag"), read);

        let change = r#"{"product_name": "Lamp"}"#;
        let changed = send(app, "PATCH", &path, &[("If-Match", &read)], change).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(changed.header("etag"), tag_of(app, &path).await);
        // An editor with the product from before this change must read it again.
        let late = send(app, "PATCH", &path, &[("If-Match", &read)], r#"{"product_name": "Chair"}"#).await;
        problem(&late, 412, "precondition_failed", "a late change");
        assert_eq!(wire::get(app, &path).await.json()["product_name"], "Lamp");
    }

    async fn a_stale_etag_changes_and_deletes_nothing(app: &TestApp) {
        let (product, path, origin) = product_with_an_image(app).await;
        app.drain().await;
        let image = format!("{path}/images/{}", product["images"][0]["id"]);
        let stale = tag_of(app, &path).await;
        assert_eq!(send(app, "PATCH", &path, &[], r#"{"product_price": 5}"#).await.status, 200);
        let before = wire::get(app, &path).await;
        let more = json!({"url": origin.url("/a.png")}).to_string();
        let requests = [
            ("DELETE", path.clone(), ""),
            ("DELETE", image.clone(), ""),
            ("POST", format!("{image}/reprocess"), ""),
            ("POST", format!("{path}/images"), more.as_str()),
            ("PATCH", path.clone(), "{}"),
        ];
        for (method, path, body) in &requests {
            for (name, value) in [("If-Match", stale.as_str()), ("If-Match", "\"other\""), ("If-None-Match", "*")] {
                let refused = send(app, method, path, &[(name, value)], body).await;
                problem(&refused, 412, "precondition_failed", &format!("{method} {path} with {name}: {value}"));
            }
        }
        let files = [("If-Match", stale.as_str()), ("Content-Type", "multipart/form-data; boundary=b")];
        let upload = wire::send(app.address, "POST", &format!("{path}/images"), &files, b"--b--\r\n").await;
        problem(&upload, 412, "precondition_failed", "an upload");
        assert_eq!(wire::get(app, &path).await.text(), before.text());
        assert_eq!(app.number("SELECT count(*) FROM jobs WHERE state = 'queued'").await, 0);

        let gone = send(app, "DELETE", &path, &[("If-Match", before.header("etag"))], "").await;
        assert_eq!(gone.status, 204, "{}", gone.text());
        let missing = send(app, "DELETE", &path, &[("If-Match", "*")], "").await;
        problem(&missing, 404, "not_found", "what is gone has no tag");
    }

    async fn every_change_returns_the_new_etag(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let new = json!({"user_id": "u", "product_name": "Lamp", "product_price": 1, "product_images": [origin.url("/a.png")]});
        let created = wire::post(app, "/products", new.to_string()).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let path = created.header("location").to_owned();
        assert_eq!(created.header("etag"), tag_of(app, &path).await, "POST /products");

        let more = json!({"url": origin.url("/a.png")}).to_string();
        let added = send(app, "POST", &format!("{path}/images"), &[("If-Match", created.header("etag"))], &more).await;
        assert_eq!((added.status, added.header("etag")), (202, tag_of(app, &path).await.as_str()));
        app.drain().await;
        let image = format!("{path}/images/{}", added.json()["images"][0]["id"]);
        let current = tag_of(app, &path).await;
        let again = send(app, "POST", &format!("{image}/reprocess"), &[("If-Match", &current)], "").await;
        assert_eq!((again.status, again.header("etag")), (202, tag_of(app, &path).await.as_str()));
        // It is already queued, so nothing changes.
        let once_more = send(app, "POST", &format!("{image}/reprocess"), &[("If-Match", &current)], "").await;
        assert_eq!(once_more.header("etag"), again.header("etag"));
        let removed = send(app, "DELETE", &image, &[("If-Match", &current)], "").await;
        assert_eq!((removed.status, removed.header("etag")), (204, tag_of(app, &path).await.as_str()));
    }

    async fn the_etag_of_a_compressed_response_is_valid_for_changes(app: &TestApp) {
        let description = "a long text. ".repeat(200);
        let new = json!({"user_id": "u", "product_name": "Lamp", "product_price": 1, "product_description": description});
        let compressed = [JSON, ("Accept-Encoding", "gzip")];
        let created =
            wire::send(app.address, "POST", "/products", &compressed, new.to_string().as_bytes()).await;
        assert_eq!((created.status, created.header("content-encoding")), (201, "gzip"));
        assert!(created.header("etag").ends_with("-gzip\""), "{}", created.header("etag"));
        let path = created.header("location").to_owned();
        let read = wire::get_with(app, &path, &[("Accept-Encoding", "br")]).await;
        assert!(read.header("etag").ends_with("-br\""), "{}", read.header("etag"));
        let change = [("If-Match", created.header("etag")), ("Accept-Encoding", "gzip")];
        let changed = send(app, "PATCH", &path, &change, r#"{"product_name": "Chair"}"#).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        problem(&send(app, "DELETE", &path, &[("If-Match", read.header("etag"))], "").await, 412, "precondition_failed", "an old tag");
        assert_eq!(send(app, "DELETE", &path, &[("If-Match", changed.header("etag"))], "").await.status, 204);
    }

    async fn a_get_with_if_match_returns_412_for_another_etag(app: &TestApp) {
        let path = format!("/products/{}", app.create(&[]).await["id"]);
        for path in [path.as_str(), "/products", "/users", "/openapi.json"] {
            let tag = tag_of(app, path).await;
            assert_eq!(wire::get_with(app, path, &[("If-Match", &tag)]).await.status, 200, "{path}");
            assert_eq!(wire::get_with(app, path, &[("If-Match", "*")]).await.status, 200, "{path}");
            let other = wire::get_with(app, path, &[("If-Match", "\"other\""), ("If-None-Match", &tag)]).await;
            problem(&other, 412, "precondition_failed", path);
            let head = wire::send(app.address, "HEAD", path, &[("If-Match", "\"other\"")], b"").await;
            assert_eq!(head.status, 412, "HEAD {path}");
        }
    }

    async fn a_304_has_the_headers_of_the_200(app: &TestApp) {
        let path = format!("/products/{}", app.create(&[]).await["id"]);
        for path in [path.as_str(), "/products", "/products?limit=1", "/openapi.json", "/"] {
            for coding in ["identity", "gzip"] {
                let known = wire::get_with(app, path, &[("Accept-Encoding", coding)]).await;
                let headers = [("Accept-Encoding", coding), ("If-None-Match", known.header("etag"))];
                let unchanged = wire::get_with(app, path, &headers).await;
                assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{path}");
                assert_eq!(unchanged.header("vary"), "Accept-Encoding", "{path}");
                for name in ["cache-control", "content-location", "expires", "vary", "link"] {
                    assert_eq!(unchanged.header(name), known.header(name), "{name} of {path}");
                }
                let plain = |tag: &str| tag.replace("-gzip\"", "\"");
                assert_eq!(plain(unchanged.header("etag")), plain(known.header("etag")), "{path}");
                assert!(!unchanged.header("date").is_empty() && unchanged.header("content-type").is_empty(), "{path}");
            }
        }
    }

    async fn a_post_with_an_unmet_condition_is_412(app: &TestApp) {
        let star = [("If-None-Match", "*")];
        let product = r#"{"user_id": "u", "product_name": "Lamp", "product_price": 1}"#;
        assert_eq!(send(app, "POST", "/products", &star, product).await.status, 201);
        let user = r#"{"id": "ada"}"#;
        let created = send(app, "POST", "/users", &star, user).await;
        assert_eq!(created.status, 201, "{}", created.text());
        assert_eq!(created.header("etag"), tag_of(app, "/users/ada").await);
        problem(&send(app, "POST", "/users", &star, user).await, 412, "precondition_failed", "a user that exists");
        problem(&send(app, "POST", "/users", &[], user).await, 409, "conflict", "a user that exists");
        for (path, body) in [("/products", product), ("/users", r#"{"id": "bob"}"#)] {
            let refused = send(app, "POST", path, &[("If-Match", "*")], body).await;
            problem(&refused, 412, "precondition_failed", "nothing exists that could match");
        }
        assert_eq!(wire::get(app, "/products").await.json()["items"].as_array().map(Vec::len), Some(1));
    }

    async fn a_webhook_is_deleted_only_with_its_own_etag(app: &TestApp) {
        let new = r#"{"url": "https://example.com/hook"}"#;
        let created = wire::post(app, "/webhooks", new).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let path = created.header("location").to_owned();
        let tag = tag_of(app, &path).await;
        assert_eq!(created.header("etag"), tag);
        let enable = format!("{path}/enable");
        for (method, path) in [("DELETE", path.as_str()), ("POST", enable.as_str())] {
            problem(&send(app, method, path, &[("If-Match", "\"other\"")], "").await, 412, "precondition_failed", path);
        }
        // Readers see a failed delivery, but it is not a change by an editor.
        app.sql("UPDATE webhooks SET failing_since = 1000").await;
        assert_eq!(wire::get_with(app, &path, &[("If-None-Match", &tag)]).await.status, 200);
        let enabled = send(app, "POST", &enable, &[("If-Match", &tag)], "").await;
        assert_eq!((enabled.status, enabled.header("etag")), (200, tag_of(app, &path).await.as_str()));
        assert_eq!(send(app, "DELETE", &path, &[("If-Match", &tag)], "").await.status, 204);
    }
}
