//! A single product: created, read, with its images and its exact price.

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{create, matches_snapshot, problem, shape, wire};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

const USUAL: &str = r#"{
    "user_id": "1234-5678-9012",
    "product_name": "Sample Product",
    "product_description": "A test product.",
    "product_images": ["https://example.com/image1.jpg", "https://example.com/image2.jpg"],
    "product_price": 100.0
}"#;

/// Returns a product's price with its exact digits, which a float would change.
#[derive(Deserialize)]
struct Priced {
    id: i64,
    product_price: Box<RawValue>,
}

#[derive(Deserialize)]
struct PricedPage {
    items: Vec<Priced>,
}

/// Creates a product with this price; returns its id and the price in the response.
async fn priced(app: &TestApp, digits: &str) -> (i64, String) {
    let body = format!(r#"{{"user_id": "u", "product_name": "exact", "product_price": {digits}}}"#);
    let answer = wire::post(app, "/products", body).await;
    assert_eq!(answer.status, 201, "{digits}: {}", answer.text());
    let made: Priced = serde_json::from_slice(&answer.body).unwrap();
    (made.id, made.product_price.get().to_owned())
}

async fn prices(app: &TestApp, query: &str) -> Vec<String> {
    let answer = wire::get(app, &format!("/products?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let page: PricedPage = serde_json::from_slice(&answer.body).unwrap();
    page.items.iter().map(|product| product.product_price.get().to_owned()).collect()
}

on_both_setups! {
    async fn a_product_is_created_read_and_listed(app: &TestApp) {
        let created = wire::post(app, "/products", USUAL).await;
        matches_snapshot("a_new_product", &shape(&created, &["content-type", "location"]));
        let product = created.json();

        let path = created.header("location");
        let read = wire::get(app, path).await;
        assert_eq!(read.status, 200);
        assert_eq!(read.body, created.body, "the read product equals the creation's response");
        matches_snapshot("a_read_product", &shape(&read, &["content-type", "x-cache"]));

        let list = wire::get(app, "/products?user_id=1234-5678-9012&min_price=50&max_price=150").await;
        matches_snapshot("a_list_of_one_product", &shape(&list, &["content-type", "link"]));
        assert_eq!(list.json()["items"], json!([product]), "a list shows products as they are read alone");
        for nothing in ["user_id=1234-5678-9012&max_price=99", "user_id=1234&min_price=50", "min_price=100.0001"] {
            assert_eq!(app.get_json(&format!("/products?{nothing}")).await, json!({"items": [], "next_cursor": null}));
        }
        assert_eq!(app.get_json("/users/1234-5678-9012").await["id"], "1234-5678-9012");
    }

    async fn a_finished_product_shows_the_outcome_of_each_image(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/photo.jpg", "image/jpeg", images::jpeg(2400, 1600));
        let id = app.create(&[origin.url("/photo.jpg"), origin.url("/status/404")]).await["id"].clone();
        app.drain().await;
        let mut shown = shape(&wire::get(app, &format!("/products/{id}")).await, &["content-type", "x-cache"]);
        let sources = std::mem::take(&mut shown["body"]["product_images"]);
        assert_eq!(sources, json!([origin.url("/photo.jpg"), origin.url("/status/404")]));
        for (image, source) in
            shown["body"]["images"].as_array_mut().unwrap().iter_mut().zip(sources.as_array().unwrap())
        {
            assert_eq!(&image["source_url"].take(), source);
        }
        // The origin's port differs each time.
        let message = shown["body"]["images"][1]["error"]["message"].take();
        assert_eq!(message, format!("{} responded with status 404", origin.url("").trim_start_matches("http://")));
        matches_snapshot("a_finished_product", &shown);
    }

    async fn only_owner_name_and_price_are_required(app: &TestApp) {
        let body = r#"{"user_id": "u", "product_name": "  Bare \t", "product_price": 0, "product_description": null}"#;
        let answer = wire::post(app, "/products", body).await;
        matches_snapshot("a_bare_product", &shape(&answer, &["content-type", "location"]));
    }

    async fn texts_of_the_maximum_length_are_accepted(app: &TestApp) {
        let body = json!({
            "user_id": "ü".repeat(64), "product_name": "𝔘".repeat(200),
            "product_description": "\u{1F980}\n".repeat(5_000), "product_price": 1,
            "product_images": vec!["https://example.com/a.jpg"; 32],
        });
        let answer = wire::post(app, "/products", body.to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let read = app.product(&answer.json()["id"]).await;
        for field in ["user_id", "product_name", "product_description", "product_images"] {
            assert_eq!(read[field], body[field], "{field}");
        }
    }

    async fn a_price_keeps_every_digit(app: &TestApp) {
        for (written, shown) in [
            ("900719925474.0993", "900719925474.0993"),
            ("900719925474.0992", "900719925474.0992"),
            ("0.0001", "0.0001"),
            ("1e2", "100.0"),
            ("1.5E-3", "0.0015"),
            ("100", "100.0"),
            ("100.00", "100.0"),
            ("19.990000", "19.99"),
            ("0.1", "0.1"),
            ("0", "0.0"),
            ("-0", "0.0"),
            ("999999999999.9999", "999999999999.9999"),
        ] {
            let (id, answered) = priced(app, written).await;
            assert_eq!(answered, shown, "{written} at the creation");
            // Twice, so that the cached response is checked as well.
            for _ in 0..2 {
                let read = wire::get(app, &format!("/products/{id}")).await;
                let read: Priced = serde_json::from_slice(&read.body).unwrap();
                assert_eq!(read.product_price.get(), shown, "{written} when it is read");
            }
            assert_eq!(prices(app, "sort=-id&limit=1").await, [shown], "{written} in a list");
        }
    }

    async fn prices_that_are_equal_as_floats_are_distinct(app: &TestApp) {
        let ascending =
            ["9.9999", "10.0", "900719925474.0991", "900719925474.0992", "900719925474.0993", "900719925474.0994"];
        assert_eq!("900719925474.0992".parse::<f64>(), "900719925474.0993".parse::<f64>(), "floats that are the same");
        for place in [3, 0, 5, 1, 4, 2] {
            priced(app, ascending[place]).await;
        }
        assert_eq!(prices(app, "sort=product_price").await, ascending);
        let descending: Vec<_> = ascending.iter().rev().copied().collect();
        assert_eq!(prices(app, "sort=-product_price").await, descending);
        assert_eq!(prices(app, "sort=product_price&min_price=900719925474.0993").await, ascending[4..]);
        assert_eq!(prices(app, "sort=product_price&max_price=900719925474.0992").await, ascending[..4]);
        assert_eq!(prices(app, "min_price=900719925474.0993&max_price=900719925474.0993").await, ascending[4..5]);
        assert_eq!(prices(app, "min_price=1e1&max_price=10").await, ["10.0"]);
    }

    async fn an_unknown_product_id_is_404(app: &TestApp) {
        for id in ["0", "1", "9223372036854775807"] {
            let path = format!("/products/{id}");
            // The second response may come from the cache.
            for _ in 0..2 {
                problem(&wire::get(app, &path).await, 404, "not_found", &path);
            }
        }
        let id = create(app, "u", "the first", "1").await;
        assert_eq!(app.product(&json!(id)).await["product_name"], "the first", "the 404 from before is forgotten");
    }

    async fn head_returns_the_headers_of_get_without_a_body(app: &TestApp) {
        wire::post(app, "/products", USUAL).await;
        for path in ["/products/1", "/products", "/users", "/healthz"] {
            let got = wire::get(app, path).await;
            let head = wire::send(app.address, "HEAD", path, &[], b"").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            assert_eq!(head.header("content-length"), got.body.len().to_string(), "{path}");
            for name in ["content-type", "etag"] {
                assert_eq!(head.header(name), got.header(name), "{path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_start_with_the_public_url() {
    app::run_with(Setup::Embedded, &[("PM_PUBLIC_URL", "https://shop.example/api")], async |app: &TestApp| {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let body = json!({
            "user_id": "u", "product_name": "n", "product_price": 1, "product_images": [origin.url("/a.png")],
        });
        let created = wire::post(app, "/products", body.to_string()).await;
        assert_eq!(created.header("location"), "https://shop.example/api/products/1");
        create(app, "u", "another", "2").await;
        app.drain().await;
        let product = app.product(&json!(1)).await;
        let link = product["compressed_product_images"][0].as_str().unwrap();
        assert!(link.starts_with("https://shop.example/api/images/"), "{link}");
        let rendition: &Value = &product["images"][0]["renditions"][0];
        assert_eq!(rendition["url"], link);
        let page = wire::get(app, "/products?limit=1").await;
        assert!(page.header("link").starts_with("<https://shop.example/api/products?limit=1&cursor="), "{page:?}");
    })
    .await;
}
