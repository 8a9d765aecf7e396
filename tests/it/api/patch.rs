//! Changes of products: merge patches, conditions, and their effect on images.

use serde_json::{Value, json};

use super::{problem, wire, wrong_fields};
use crate::support::{Origin, TestApp, images, on_both_setups};

async fn patch_with(app: &TestApp, id: &Value, body: &str, headers: &[(&str, &str)]) -> wire::Answer {
    let mut all = vec![("Content-Type", "application/merge-patch+json")];
    all.extend_from_slice(headers);
    wire::send(app.address, "PATCH", &format!("/products/{id}"), &all, body.as_bytes()).await
}

async fn patch(app: &TestApp, id: &Value, body: &str) -> wire::Answer {
    patch_with(app, id, body, &[]).await
}

fn ids_of(product: &Value) -> Vec<(i64, i64)> {
    let images = product["images"].as_array().unwrap();
    images.iter().map(|image| (image["id"].as_i64().unwrap(), image["position"].as_i64().unwrap())).collect()
}

on_both_setups! {
    async fn a_patch_changes_only_the_named_fields(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        // It is cached now; the old value must not be returned later.
        app.product(&id).await;
        let answer = patch(app, &id, r#"{"product_name": " Lamp ", "product_price": 900719925474.0993}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("\"product_price\":900719925474.0993"), "{}", answer.text());
        let changed = answer.json();
        assert_eq!((&changed["product_name"], &changed["version"]), (&json!("Lamp"), &json!(2)));
        assert_eq!(changed["product_description"], "A test product.");
        let read = wire::get(app, &format!("/products/{id}")).await;
        assert_eq!((read.text(), read.header("etag")), (answer.text(), answer.header("etag")));
        let answer = patch(app, &id, r#"{"product_description": null}"#).await;
        assert_eq!(answer.json()["product_description"], "");
        assert_eq!(app.product(&id).await["version"], 3);
    }

    async fn a_patch_without_changes_keeps_the_version(app: &TestApp) {
        let images = ["https://example.com/a.jpg".to_owned(), "https://example.com/b.jpg".to_owned()];
        let before = app.create(&images).await;
        let same = json!({"product_name": "Sample Product", "product_price": 100, "product_images": images});
        for body in ["{}".to_owned(), same.to_string()] {
            let answer = patch(app, &before["id"], &body).await;
            assert_eq!(answer.json(), before, "{body}");
        }
        assert_eq!(app.product(&before["id"]).await, before);
    }

    async fn an_invalid_patch_names_every_invalid_field_and_changes_nothing(app: &TestApp) {
        let before = app.create(&[]).await;
        let body = r#"{"product_name": null, "product_price": "5", "product_images": ["http://a.example/1", "ftp://b"],
            "product_description": 5, "user_id": "other", "colour": "red"}"#;
        let details = problem(&patch(app, &before["id"], body).await, 422, "validation", "a wrong patch");
        let expected =
            ["colour", "product_description", "product_images[1]", "product_name", "product_price", "user_id"];
        assert_eq!(wrong_fields(&details), expected);
        assert_eq!(app.product(&before["id"]).await, before);
        problem(&patch(app, &before["id"], "[]").await, 400, "malformed_json", "no object");
        problem(&patch(app, &json!(99), "{}").await, 404, "not_found", "no product");
        let headers = [("Content-Type", "text/plain")];
        let other = wire::send(app.address, "PATCH", "/products/1", &headers, b"{}").await;
        problem(&other, 415, "unsupported_media_type", "another type");
        let many = json!({"product_images": vec!["https://example.com/a.jpg"; 33]}).to_string();
        let details = problem(&patch(app, &before["id"], &many).await, 422, "validation", "too many images");
        assert_eq!(wrong_fields(&details), ["product_images"]);
    }

    async fn a_product_can_be_sent_back_with_a_change(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        let mut read = app.product(&id).await;
        let tag = wire::get(app, &format!("/products/{id}")).await.header("etag").to_owned();
        app.drain().await;
        let ready = app.product(&id).await;
        assert_eq!((&read["status"], &ready["status"]), (&json!("processing"), &json!("ready")));
        read["product_name"] = json!("Lamp");
        let changed = patch_with(app, &id, &read.to_string(), &[("If-Match", &tag)]).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let mut expected = ready;
        for (name, value) in [("product_name", json!("Lamp")), ("version", changed.json()["version"].clone())] {
            expected[name] = value;
        }
        expected["updated_at"] = changed.json()["updated_at"].clone();
        assert_eq!(changed.json(), expected, "nothing else changed");
        let same = patch(app, &id, &changed.text()).await;
        assert_eq!(same.json(), changed.json(), "the whole product as it is changes nothing");
        let mut other = changed.json();
        (other["id"], other["user_id"]) = (json!(99), json!("other"));
        let details = problem(&patch(app, &id, &other.to_string()).await, 422, "validation", "another product");
        assert_eq!(wrong_fields(&details), ["id", "user_id"]);
    }

    async fn if_match_accepts_one_of_two_concurrent_changes(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        let tag = wire::get(app, &format!("/products/{id}")).await.header("etag").to_owned();
        let condition = [("If-Match", tag.as_str())];
        let (one, other) = tokio::join!(
            patch_with(app, &id, r#"{"product_name": "one"}"#, &condition),
            patch_with(app, &id, r#"{"product_name": "other"}"#, &condition),
        );
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "exactly one of them saw the product as it is");
        let late = patch_with(app, &id, r#"{"product_name": "late"}"#, &condition).await;
        problem(&late, 412, "precondition_failed", "a late change");
        assert_eq!(app.product(&id).await["version"], 2);
        let any = patch_with(app, &id, r#"{"product_name": "any"}"#, &[("If-Match", "*")]).await;
        assert_eq!(any.status, 200);
        let tag = any.header("etag").to_owned();
        let listed = format!("\"x\", {tag}");
        assert_eq!(patch_with(app, &id, r#"{"product_name": "list"}"#, &[("If-Match", &listed)]).await.status, 200);
        let tag = wire::get(app, &format!("/products/{id}")).await.header("etag").to_owned();
        let weak = format!("W/{tag}");
        assert_eq!(patch_with(app, &id, r#"{"product_name": "weak"}"#, &[("If-Match", &weak)]).await.status, 412);
    }

    async fn images_with_an_unchanged_url_keep_their_renditions(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        origin.serve("/b.png", "image/png", images::png(48, 64));
        origin.serve("/c.png", "image/png", images::png(32, 32));
        let [a, b, c] = ["/a.png", "/b.png", "/c.png"].map(|path| origin.url(path));
        let id = app.create(&[a.clone(), b.clone(), a.clone()]).await["id"].clone();
        app.drain().await;
        let before = app.product(&id).await;
        let [(first, _), (second, _), _] = ids_of(&before)[..] else { panic!("three images") };
        let body = json!({"product_images": [c, b, a]}).to_string();
        let changed = patch(app, &id, &body).await.json();
        assert_eq!(changed["product_images"], json!([c, b, a]));
        assert_eq!(changed["status"], "processing", "a new image is pending");
        let [(new, 0), (kept_b, 1), (kept_a, 2)] = ids_of(&changed)[..] else { panic!("{changed}") };
        assert_eq!((kept_b, kept_a), (second, first));
        assert!(new > second);
        let image = |product: &Value, id: i64| {
            let images = product["images"].as_array().unwrap();
            images.iter().find(|image| image["id"] == id).unwrap()["renditions"].clone()
        };
        assert_eq!(image(&changed, first), image(&before, first));
        assert_eq!(app.drain().await, 1, "only the new image is worked on");
        let done = app.product(&id).await;
        assert_eq!(done["status"], "ready");
        assert_eq!(done["compressed_product_images"].as_array().unwrap().len(), 3);
        let none = patch(app, &id, r#"{"product_images": null}"#).await.json();
        assert_eq!((&none["images"], &none["status"]), (&json!([]), &json!("ready")));
    }

    async fn an_image_is_removed_while_a_worker_processes_it(app: &TestApp) {
        let id = app.create(&["https://example.com/a.jpg".to_owned()]).await["id"].clone();
        let claimed = app.claim().await.expect("a job");
        let changed = patch(app, &id, r#"{"product_images": []}"#).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(changed.json()["status"], "ready");
        let late = app.app.catalog.settle(&claimed, pm::catalog::Settlement::Release).await;
        assert!(matches!(late, Err(pm::catalog::Error::LeaseLost)), "{late:?}");
        assert_eq!(app.product(&id).await, changed.json());
        assert_eq!(app.drain().await, 0);
    }

    async fn every_one_of_many_concurrent_changes_is_applied(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        let bodies: Vec<_> = (0..16)
            .map(|number| json!({"product_images": [format!("https://example.com/{number}.jpg")]}).to_string())
            .collect();
        // An overloaded server may answer 503. The test repeats such a request.
        let change = async |body: &str| loop {
            let answer = patch(app, &id, body).await;
            if answer.status != 503 {
                return answer.json()["version"].as_i64().unwrap();
            }
        };
        let mut versions = futures_util::future::join_all(bodies.iter().map(|body| change(body))).await;
        versions.sort_unstable();
        assert_eq!(versions, (2..=17).collect::<Vec<_>>());
        let last = app.product(&id).await;
        assert_eq!((last["version"].as_i64(), last["images"].as_array().map(Vec::len)), (Some(17), Some(1)));
    }
}
