//! Invalid input is refused with a problem that explains why, and never stored; unusual valid input is stored
//! unchanged.

use serde_json::{Value, json};

use super::{create, escaped, matches_snapshot, problem, shape, wire, wrong_fields};
use crate::support::{Origin, Setup, TestApp, app, images, on_both_setups};

/// Texts that some component might interpret as something other than text.
const STRANGE: &[&str] = &[
    "\u{202e}desrever",
    "\u{2066}isolated\u{2069}",
    "مرحبا بالعالم",
    "שלום עולם",
    "\u{200b}zero\u{200b}width\u{200b}",
    "\u{feff}BOM",
    "👩‍👩‍👧‍👦",
    "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "🇩🇪🇫🇷",
    "☃\u{fe0f}☃\u{fe0e}",
    "'; DROP TABLE products; --",
    "\" OR 1=1 --",
    "$1 ? :name @p1",
    "<script>alert('x')</script>",
    "&lt;b&gt;&amp;",
    "]]><!--",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "%s%n%x",
    "../../etc/passwd",
    r"C:\new\table\0",
    "\\u0000",
    "null",
    "NaN",
    "1e309",
    "true",
    "e\u{301} and \u{e9}",
    "ﬁ Ǆ ß İ ı",
    "Z\u{335}\u{341}a\u{322}\u{356}l\u{338}g\u{35b}o",
    "\u{10ffff}\u{fffd}\u{fffe}",
    "a\u{85}b\u{2028}c\u{2029}d",
    "\u{7f}\u{1}\u{1b}[31mred",
    "row\r\nheader: injected\ttab",
    "\u{1d518}\u{1d52b}",
    "'\"`´‘“",
];

/// Returns a valid product with one field replaced.
fn with(field: &str, value: Value) -> String {
    let mut product = json!({"user_id": "u", "product_name": "n", "product_price": 1});
    product[field] = value;
    product.to_string()
}

async fn nothing_was_stored(app: &TestApp) {
    for path in ["/products", "/users"] {
        assert_eq!(app.get_json(path).await["items"], json!([]), "{path}");
    }
}

on_both_setups! {
    async fn a_problem_names_the_invalid_field(app: &TestApp) {
        for (field, value) in [
            ("user_id", json!("")),
            ("user_id", json!("  ")),
            ("user_id", json!("x".repeat(65))),
            ("user_id", json!("a\nb")),
            ("user_id", json!("a\u{0}b")),
            ("user_id", json!(1234)),
            ("user_id", Value::Null),
            ("product_name", json!("")),
            ("product_name", json!(" \t\n\u{3000}")),
            ("product_name", json!("x".repeat(201))),
            ("product_name", json!("a\u{0}b")),
            ("product_name", json!(["n"])),
            ("product_name", Value::Null),
            ("product_description", json!("x".repeat(10_001))),
            ("product_description", json!("a\u{0}b")),
            ("product_description", json!({})),
            ("product_price", json!(-1)),
            ("product_price", json!(-0.0001)),
            ("product_price", json!("12")),
            ("product_price", json!("NaN")),
            ("product_price", json!(true)),
            ("product_price", json!([1])),
            ("product_price", Value::Null),
            ("product_images", json!("https://example.com/a.jpg")),
            ("product_images", json!({"0": "https://example.com/a.jpg"})),
            ("product_images", json!(vec!["https://example.com/a.jpg"; 33])),
            ("colour", json!("red")),
            ("id", json!(7)),
            ("", json!(1)),
        ] {
            let body = with(field, value);
            let when = &body[..body.floor_char_boundary(150)];
            let details = problem(&wire::post(app, "/products", &body).await, 422, "validation", when);
            assert_eq!(wrong_fields(&details), [field], "{when}");
        }
        nothing_was_stored(app).await;
    }

    async fn an_invalid_price_is_refused(app: &TestApp) {
        for digits in
            ["1.00001", "1e-5", "1000000000000", "1e12", "1e30", "1e400", "1e-400", "-1e2", "9999999999999999999999999"]
        {
            let body = format!(r#"{{"user_id": "u", "product_name": "n", "product_price": {digits}}}"#);
            let details = problem(&wire::post(app, "/products", &body).await, 422, "validation", digits);
            assert_eq!(wrong_fields(&details), ["product_price"], "{digits}");
        }
        for digits in ["NaN", "Infinity", "-", "01", "1.", ".5", "0x10", "1_000", "1,5", "+1"] {
            let body = format!(r#"{{"user_id": "u", "product_name": "n", "product_price": {digits}}}"#);
            problem(&wire::post(app, "/products", &body).await, 400, "malformed_json", digits);
        }
        nothing_was_stored(app).await;
    }

    async fn a_forbidden_image_url_is_named_by_its_index(app: &TestApp) {
        for url in [
            "",
            "image1.jpg",
            "//example.com/a.jpg",
            "ftp://example.com/a.jpg",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "javascript:alert(1)",
            "http://",
            "https://user:secret@example.com/a.jpg",
            "http://example.com:22/a.jpg",
            "http://10.0.0.1/a.jpg",
            "http://169.254.169.254/latest/meta-data",
            "http://192.168.1.1/",
            "http://[fd00::1]/a.jpg",
            "http://[::ffff:10.0.0.1]/a.jpg",
            "http://0x0a000001/a.jpg",
            "http://167772161/a.jpg",
            "http://0/",
        ] {
            let body = with("product_images", json!(["https://example.com/good.jpg", url]));
            let details = problem(&wire::post(app, "/products", &body).await, 422, "validation", url);
            assert_eq!(wrong_fields(&details), ["product_images[1]"], "{url}");
            assert!(!details.to_string().contains("secret"), "{details}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2_100));
        let answer = wire::post(app, "/products", with("product_images", json!([long, 7, null]))).await;
        let details = problem(&answer, 422, "validation", "a list of wrong addresses");
        assert!(wrong_fields(&details).len() == 3, "{details}");
        nothing_was_stored(app).await;
    }

    async fn one_problem_names_all_invalid_fields(app: &TestApp) {
        let body = json!({
            "user_id": "x".repeat(65), "product_name": "  ", "product_description": "x".repeat(10_001),
            "product_images": ["https://example.com/a.jpg", "ftp://example.com/b.jpg", "http://10.0.0.1/c.jpg"],
            "product_price": -0.00001, "colour": "red", "product_nmae": "a typing error",
        });
        let answer = wire::post(app, "/products", body.to_string()).await;
        matches_snapshot("a_wrong_product", &shape(&answer, &["content-type"]));
        let nothing = wire::post(app, "/products", "{}").await;
        matches_snapshot("an_empty_product", &shape(&nothing, &["content-type"]));
        nothing_was_stored(app).await;
    }

    async fn a_byte_order_mark_before_a_body_is_ignored(app: &TestApp) {
        let body = b"\xef\xbb\xbf{\"user_id\": \"u\", \"product_name\": \"Lamp\", \"product_price\": 1}";
        let created = wire::post(app, "/products", body).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let batch = wire::post(app, "/products:batch", [&b"\xef\xbb\xbf["[..], &body[3..], b"]"].concat()).await;
        assert_eq!(batch.json()["created"], 1, "{}", batch.text());
        let path = created.header("location");
        let kind = [("Content-Type", "application/json")];
        let patch = b"\xef\xbb\xbf{\"product_name\": \"Chair\"}";
        assert_eq!(wire::send(app.address, "PATCH", path, &kind, patch).await.json()["product_name"], "Chair");
        let twice = [&b"\xef\xbb\xbf"[..], &body[..]].concat();
        problem(&wire::post(app, "/products", twice).await, 400, "malformed_json", "two marks");
    }

    async fn a_body_that_is_not_an_object_is_malformed(app: &TestApp) {
        let deep = "{\"a\":".repeat(100_000);
        let bodies: [&[u8]; 16] = [
            b"",
            b" ",
            b"[]",
            b"\"text\"",
            b"1",
            b"null",
            b"true",
            b"{",
            b"{}{}",
            b"{\"user_id\"}",
            b"{'user_id': 'u'}",
            b"{\"a\": 1,}",
            b"{\"user_id\": \"\xff\xfe\"}",
            b"{\"user_id\": \"\xed\xa0\x80\"}",
            b"user_id=u",
            deep.as_bytes(),
        ];
        for body in bodies {
            let when = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            problem(&wire::post(app, "/products", body).await, 400, "malformed_json", &when);
        }
        nothing_was_stored(app).await;
    }

    async fn a_deeply_nested_value_is_only_an_invalid_value(app: &TestApp) {
        for (open, close) in [("[", "]"), ("{\"a\":[", "]}")] {
            let deep = format!("{}{}", open.repeat(50_000), close.repeat(50_000));
            for field in ["product_name", "product_price", "colour"] {
                let body = format!(r#"{{"user_id": "u", "{field}": {deep}}}"#);
                let details = problem(&wire::post(app, "/products", &body).await, 422, "validation", field);
                assert!(wrong_fields(&details).contains(&field), "{field}");
            }
        }
        nothing_was_stored(app).await;
    }

    async fn a_duplicate_field_is_refused(app: &TestApp) {
        let body = r#"{"user_id": "u", "product_name": "n", "product_price": 1, "product_price": 2}"#;
        let details = problem(&wire::post(app, "/products", body).await, 422, "validation", "a price twice");
        assert_eq!(wrong_fields(&details), ["product_price"]);
        // Half of a surrogate pair, which no text may contain.
        let half = r#"{"user_id": "u", "product_name": "\ud800", "product_price": 1}"#;
        let answer = wire::post(app, "/products", half).await;
        assert!(answer.status == 400 || answer.status == 422, "{}", answer.text());
        problem(&answer, answer.status, answer.json()["code"].as_str().unwrap(), "half a character");
        nothing_was_stored(app).await;
    }

    async fn a_413_problem_states_the_limit(app: &TestApp) {
        let large = with("product_description", json!("x".repeat(2 << 20)));
        let details = problem(&wire::post(app, "/products", &large).await, 413, "body_too_large", "two megabytes");
        assert!(details["detail"].as_str().unwrap().contains("1048576"), "{details}");
        let mut chunked = Vec::new();
        for piece in large.as_bytes().chunks(60_000) {
            chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let headers = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")];
        let answer = wire::send(app.address, "POST", "/products", &headers, &chunked).await;
        problem(&answer, 413, "body_too_large", "two megabytes in pieces");
        nothing_was_stored(app).await;
    }

    async fn only_json_bodies_are_accepted(app: &TestApp) {
        let good = with("product_name", json!("n"));
        for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"] {
            let headers: &[_] = if kind.is_empty() { &[] } else { &[("Content-Type", kind)] };
            let answer = wire::send(app.address, "POST", "/products", headers, good.as_bytes()).await;
            problem(&answer, 415, "unsupported_media_type", kind);
        }
        nothing_was_stored(app).await;
        let headers = [("Content-Type", "Application/JSON; charset=utf-8")];
        assert_eq!(wire::send(app.address, "POST", "/products", &headers, good.as_bytes()).await.status, 201);
    }

    async fn an_unknown_path_is_a_404_problem(app: &TestApp) {
        create(app, "u", "n", "1").await;
        for path in [
            "/nothing",
            "/products/",
            "/products/1/",
            "/products/1/photos",
            "//products",
            "/Products",
            "/images",
            "/%00",
            "/é",
        ] {
            problem(&wire::get(app, path).await, 404, "not_found", path);
        }
        for id in ["abc", "-1", "+1", "1.0", "1e0", "0x1", "%2531", "1%2Fevents", "99999999999999999999", "1%00", "%20"] {
            let path = format!("/products/{id}");
            problem(&wire::get(app, &path).await, 404, "not_found", &path);
        }
    }

    async fn ids_in_a_path_are_percent_decoded(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let product = app.create(&[origin.url("/a.png")]).await;
        app.drain().await;
        assert_eq!(product["id"], 1, "{product}");
        let image = product["images"][0]["id"].to_string();
        let escaped: String = image.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for (method, path, status) in [
            ("GET", "/products/%31".to_owned(), 200),
            ("HEAD", "/products/%31".to_owned(), 200),
            ("GET", format!("/products/%31/images/{escaped}/small"), 200),
            ("POST", format!("/products/%31/images/{escaped}/reprocess"), 202),
            ("GET", "/webhooks/%31".to_owned(), 404),
            ("GET", "/queue/dead/%31".to_owned(), 404),
            ("DELETE", format!("/products/%31/images/{escaped}"), 204),
            ("DELETE", "/products/%31".to_owned(), 204),
        ] {
            let answer = wire::send(app.address, method, &path, &[], b"").await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
        for path in [
            "/products/%zz",
            "/products/%",
            "/products/1/images/%zz/small",
            "/products/%FF/events",
            "/images/%zz",
            "/users/%zz",
            "/webhooks/%zz",
            "/webhooks/%zz/deliveries",
            "/queue/dead/%zz",
        ] {
            problem(&wire::get(app, path).await, 400, "bad_request", path);
        }
    }

    async fn a_404_names_the_parameter_that_is_not_a_number(app: &TestApp) {
        for (method, path, field) in [
            ("GET", "/products/x", "id"),
            ("GET", "/products/x/events", "id"),
            ("GET", "/products/1/images/x/small", "image_id"),
            ("DELETE", "/products/1/images/x", "image_id"),
            ("GET", "/webhooks/x", "id"),
            ("POST", "/webhooks/1/deliveries/x/retry", "delivery_id"),
            ("GET", "/queue/dead/x", "id"),
        ] {
            let answer = wire::send(app.address, method, path, &[], b"").await;
            let details = problem(&answer, 404, "not_found", path);
            assert_eq!(details["errors"][0]["field"], field, "{path}: {details}");
        }
    }

    async fn a_405_lists_the_allowed_methods(app: &TestApp) {
        for (method, path, allow) in [
            ("PUT", "/products", "GET, HEAD, POST, OPTIONS"),
            ("DELETE", "/users", "GET, HEAD, POST, OPTIONS"),
            ("POST", "/products/1", "GET, HEAD, PATCH, DELETE, OPTIONS"),
            ("POST", "/images/a.jpg", "GET, HEAD, OPTIONS"),
            ("GET", "/queue/dead/1/retry", "POST, OPTIONS"),
            ("POST", "/healthz", "GET, HEAD, OPTIONS"),
            ("BREW", "/metrics", "GET, HEAD, OPTIONS"),
        ] {
            let answer = wire::send(app.address, method, path, &[], b"").await;
            problem(&answer, 405, "method_not_allowed", &format!("{method} {path}"));
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
            let options = wire::send(app.address, "OPTIONS", path, &[], b"").await;
            assert_eq!((options.status, options.header("allow")), (204, allow), "{path}");
        }
    }

    async fn unusual_text_is_returned_byte_for_byte(app: &TestApp) {
        let many_accents = format!("e{}", "\u{301}".repeat(60));
        for text in STRANGE.iter().copied().chain([many_accents.as_str()]) {
            let as_user = !text.chars().any(char::is_control);
            let user_id = if as_user { text } else { "plain" };
            let sent = json!({
                "user_id": user_id, "product_name": text, "product_price": 1,
                "product_description": format!(" {text}\n"),
            });
            let made = wire::post(app, "/products", sent.to_string()).await;
            assert_eq!(made.status, 201, "{text:?}: {}", made.text());
            let made = made.json();
            let listed = app.get_json(&format!("/products?limit=1&sort=-id&user_id={}", escaped(user_id))).await;
            let found = app.get_json(&format!("/products?limit=1&sort=-id&name={}", escaped(text))).await;
            let cold = app.product(&made["id"]).await;
            let hot = app.product(&made["id"]).await;
            for (place, product) in [
                ("made", &made),
                ("cold", &cold),
                ("hot", &hot),
                ("listed", &listed["items"][0]),
                ("found", &found["items"][0]),
            ] {
                for field in ["user_id", "product_name", "product_description"] {
                    assert_eq!(product[field], sent[field], "{field} of {text:?} when it is {place}");
                }
            }
            let user = app.get_json(&format!("/users/{}", escaped(user_id).replace('+', "%20"))).await;
            assert_eq!(user["id"], user_id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_user_is_refused_when_users_are_not_created_automatically() {
    for setup in [Setup::Embedded, Setup::Full] {
        app::run_with(setup, &[("PM_AUTO_USERS", "false")], async |app: &TestApp| {
            let body = with("user_id", json!("stranger"));
            let details = problem(&wire::post(app, "/products", &body).await, 422, "validation", "an unknown user");
            assert_eq!(wrong_fields(&details), ["user_id"]);
            nothing_was_stored(app).await;
            assert_eq!(wire::post(app, "/users", r#"{"id": "stranger"}"#).await.status, 201);
            assert_eq!(wire::post(app, "/products", &body).await.status, 201);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_urls_on_loopback_are_refused_unless_allowed() {
    app::run_with(Setup::Embedded, &[("PM_FETCH_ALLOW", "")], async |app: &TestApp| {
        for url in [
            "http://127.0.0.1:9000/a.jpg",
            "http://localhost/a.jpg",
            "http://[::1]/a.jpg",
            "http://127.1/",
            "http://0.0.0.0/",
        ] {
            let body = with("product_images", json!([url]));
            let details = problem(&wire::post(app, "/products", &body).await, 422, "validation", url);
            assert_eq!(wrong_fields(&details), ["product_images[0]"], "{url}");
        }
        nothing_was_stored(app).await;
    })
    .await;
}
