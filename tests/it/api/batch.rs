//! Batches: several products in one request.

use serde_json::{Value, json};

use super::{problem, wire, wrong_fields};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

fn product(number: usize, images: &[String]) -> Value {
    json!({
        "user_id": format!("u{}", number % 7), "product_name": format!("n{number}"), "product_price": number,
        "product_images": images,
    })
}

on_both_setups! {
    async fn a_batch_stores_valid_products_and_refuses_invalid_ones(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let image = [origin.url("/a.png"), origin.url("/a.png")];
        let wrong = json!({"user_id": "u", "product_name": " ", "product_price": "1"});
        let body = json!([product(0, &image), wrong, product(2, &[]), 5, product(4, &image[..1])]).to_string();
        let answer = wire::post(app, "/products:batch", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response = answer.json();
        assert_eq!((&response["created"], &response["failed"]), (&json!(3), &json!(2)));
        let items = response["items"].as_array().unwrap();
        let statuses: Vec<_> = items.iter().map(|item| (item["index"].as_u64(), item["status"].as_u64())).collect();
        let status = |index, status| (Some(index), Some(status));
        assert_eq!(statuses, [status(0, 201), status(1, 422), status(2, 201), status(3, 422), status(4, 201)]);
        assert_eq!(items[1]["error"]["code"], "validation");
        assert_eq!(wrong_fields(&items[1]["error"]), ["product_name", "product_price"]);
        for index in [0, 2, 4] {
            let stored = &items[index]["product"];
            assert_eq!(*stored, app.product(&stored["id"]).await, "the read product equals the response");
        }
        assert_eq!(app.drain().await, 3);
        assert_eq!(app.product(&items[0]["product"]["id"]).await["status"], "ready");
        assert_eq!(app.get_json("/products?q=n4").await["items"].as_array().map(Vec::len), Some(1));
    }

    async fn a_batch_accepts_a_thousand_products(app: &TestApp) {
        let products: Vec<_> = (0..1_000).map(|number| product(number, &[])).collect();
        let body = json!({"products": products}).to_string();
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "all")];
        let first = wire::send(app.address, "POST", "/products:batch", &headers, body.as_bytes()).await;
        assert_eq!((first.status, &first.json()["created"]), (200, &json!(1_000)));
        let again = wire::send(app.address, "POST", "/products:batch", &headers, body.as_bytes()).await;
        assert_eq!((again.header("idempotency-replayed"), again.text()), ("true", first.text()));
        let last = app.get_json("/products?sort=-id&limit=1").await;
        assert_eq!(last["items"][0]["product_name"], "n999");
        assert_eq!(last["items"][0]["id"], first.json()["items"][999]["product"]["id"]);
    }

    async fn a_batch_that_failed_in_part_is_continued_by_a_repeated_request(app: &TestApp) {
        let on_postgres = [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON products FOR EACH ROW
                WHEN (NEW.product_name = 'n700') EXECUTE FUNCTION refuse()",
        ];
        let on_sqlite = ["CREATE TRIGGER refuse BEFORE INSERT ON products
            WHEN NEW.product_name = 'n700' BEGIN SELECT RAISE(ABORT, 'broken'); END"];
        let (broken, mended) = match app.setup {
            Setup::Embedded => (&on_sqlite[..], "DROP TRIGGER refuse"),
            Setup::Full => (&on_postgres[..], "DROP TRIGGER refuse ON products"),
        };
        for statement in broken {
            app.sql(statement).await;
        }
        let image = ["https://example.com/a.jpg".to_owned()];
        let products: Vec<_> = (0..1_000).map(|number| product(number, &image[..number % 2])).collect();
        let body = json!(products).to_string();
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "all")];
        let post = async || wire::send(app.address, "POST", "/products:batch", &headers, body.as_bytes()).await;
        let first = post().await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, ""));
        let first = first.json();
        let created = first["created"].as_u64().unwrap() as usize;
        assert!((1..=700).contains(&created), "{created} created");
        for (index, item) in first["items"].as_array().unwrap().iter().enumerate() {
            assert_eq!(item["status"], if index < created { 201 } else { 503 }, "item {index}");
        }
        assert_eq!(first["items"][created]["error"]["code"], "unavailable");
        app.sql(mended).await;
        let second = post().await;
        assert_eq!((second.status, second.header("idempotency-replayed")), (200, ""));
        let second = second.json();
        assert_eq!(second["created"], 1_000);
        let stored = |answer: &Value| answer["items"].as_array().unwrap()[..created].to_vec();
        assert_eq!(stored(&second), stored(&first));
        for index in [0, created - 1, created, created + 1, 999] {
            let stored = &second["items"][index]["product"];
            assert_eq!(*stored, app.product(&stored["id"]).await, "item {index}");
        }
        let third = post().await;
        assert_eq!((third.header("idempotency-replayed"), third.json()), ("true", second));
        for table in ["products", "images", "jobs"] {
            let expected = if table == "products" { 1_000 } else { 500 };
            assert_eq!(app.number(&format!("SELECT count(*) FROM {table}")).await, expected, "{table}");
        }
    }

    async fn concurrent_batches_with_one_key_store_each_product_once(app: &TestApp) {
        let products: Vec<_> = (0..600).map(|number| product(number, &[])).collect();
        let body = json!(products).to_string();
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "all")];
        let post = async || wire::send(app.address, "POST", "/products:batch", &headers, body.as_bytes()).await;
        let (one, two, three) = tokio::join!(post(), post(), post());
        for answer in [&one, &two, &three] {
            assert_eq!((answer.status, &answer.json()["created"]), (200, &json!(600)));
            assert_eq!(answer.text(), one.text());
        }
        assert_eq!(app.number("SELECT count(*) FROM products").await, 600);
    }

    async fn an_invalid_batch_is_refused_as_a_whole(app: &TestApp) {
        let many = json!(vec![json!({}); 1_001]).to_string();
        for (body, status, code) in [
            ("{", 400, "malformed_json"),
            ("5", 400, "malformed_json"),
            ("{}", 422, "validation"),
            (r#"{"products": [], "more": 1}"#, 422, "validation"),
            (many.as_str(), 422, "validation"),
        ] {
            problem(&wire::post(app, "/products:batch", body).await, status, code, body);
        }
        let large = format!("[\"{}\"]", "x".repeat(8 << 20));
        problem(&wire::post(app, "/products:batch", &large).await, 413, "body_too_large", "9 MiB");
        let none = wire::post(app, "/products:batch", "[]").await.json();
        assert_eq!(none, json!({"items": [], "created": 0, "failed": 0}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_user_fails_only_its_own_products() {
    app::run_with(Setup::Embedded, &[("PM_AUTO_USERS", "false")], async |app: &TestApp| {
        assert_eq!(wire::post(app, "/users", r#"{"id": "u1"}"#).await.status, 201);
        let body = json!([product(0, &[]), product(1, &[])]).to_string();
        let response = wire::post(app, "/products:batch", &body).await.json();
        assert_eq!((&response["items"][0]["status"], &response["items"][1]["status"]), (&json!(422), &json!(201)));
        assert_eq!(wrong_fields(&response["items"][0]["error"]), ["user_id"]);
    })
    .await;
}
