//! Tests of the responses of each resource.

use bytes::Bytes;

use super::{Answer, PRODUCT, Server};
use crate::http::{request::method::RequestMethod, table::TABLE};

#[tokio::test]
async fn every_route_of_the_table_has_a_handler() {
    let server = Server::start().await;
    for route in TABLE.routes() {
        let path = route
            .template()
            .replace("{id}", "1")
            .replace("{image_id}", "1")
            .replace("{delivery_id}", "1")
            .replace("{key}", "ab/cd/ef.jpg");
        // An event stream is endless, so only its head is requested.
        let method = if route.template() == "/events" { "HEAD" } else { "GET" };
        let answer = server.send(&format!("{method} {path} HTTP/1.1"), b"").await;
        let expected: &[u16] = if route.permits(RequestMethod::Get) { &[200, 403, 404] } else { &[405] };
        assert!(expected.contains(&answer.status), "{path}: {answer:?}");
        if route.permits(RequestMethod::Post) {
            // A route without a body looks up the resource at once.
            let status = server.post(&path, "{").await.status;
            assert!([400, 404].contains(&status), "{path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_product_is_created_read_and_revalidated() {
    let server = Server::start().await;
    let created = server.post("/products", PRODUCT).await;
    assert_eq!(created.status, 201, "{created:?}");
    let place = created.header("location").to_owned();
    assert_eq!(place, format!("/products/{}", created.json()["id"]));

    let first = server.get(&place).await;
    let second = server.get(&place).await;
    assert_eq!((first.header("x-cache"), second.header("x-cache")), ("miss", "hit"));
    assert_eq!(first.json(), created.json());
    assert_eq!(first.body, second.body);
    let tag = second.header("etag").to_owned();
    assert_eq!(first.header("etag"), tag);
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    assert_eq!(second.header("content-type"), "application/json");

    let unchanged = server.send(&format!("GET {place} HTTP/1.1\nIf-None-Match: \"x\", W/{tag}"), b"").await;
    assert_eq!(unchanged.status, 304);
    assert_eq!(unchanged.header("etag"), tag);
    assert!(unchanged.body.is_empty());
    assert!(!unchanged.headers.contains_key("content-length"), "{unchanged:?}");
    let changed = server.send(&format!("GET {place} HTTP/1.1\nIf-None-Match: \"x\""), b"").await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn head_returns_the_headers_of_get() {
    let server = Server::start().await;
    let place = server.post("/products", PRODUCT).await.header("location").to_owned();
    for path in [place.as_str(), place.as_str(), "/products", "/healthz", "/products/999"] {
        let get = server.get(path).await;
        let head = server.send(&format!("HEAD {path} HTTP/1.1"), b"").await;
        assert_eq!(head.status, get.status);
        assert!(head.body.is_empty());
        for name in ["content-length", "content-type", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
    }
}

#[tokio::test]
async fn options_and_405_list_the_allowed_methods() {
    let server = Server::start().await;
    let options = server.send("OPTIONS /products HTTP/1.1", b"").await;
    assert_eq!((options.status, options.header("allow")), (204, "GET, HEAD, POST, OPTIONS"));
    for method in ["PUT", "BREW", "POST"] {
        let refused = server.send(&format!("{method} /products/1 HTTP/1.1\nContent-Length: 2"), b"{}").await;
        refused.problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), "GET, HEAD, PATCH, DELETE, OPTIONS");
    }
}

#[tokio::test]
async fn unknown_paths_and_invalid_ids_are_404() {
    let server = Server::start().await;
    for path in ["/nowhere", "/products/", "/products/1/", "/products//", "//", "/images/", "/images/../etc/passwd"] {
        server.get(path).await.problem(404, "not_found");
    }
    server.send("DELETE /products/999999 HTTP/1.1\nContent-Length: 2", b"{}").await.problem(404, "not_found");
    let missing = server.get("/products/999999").await.problem(404, "not_found");
    assert_eq!(missing["detail"], "product 999999 not found");
    for id in ["abc", "-1", "1.5", "99999999999999999999"] {
        let problem = server.get(&format!("/products/{id}")).await.problem(404, "not_found");
        assert_eq!(problem["errors"][0]["field"], "id");
    }
}

#[tokio::test]
async fn all_invalid_fields_are_reported_at_once() {
    let server = Server::start().await;
    let problem = server.post("/products", r#"{"user_id": "", "product_price": -1, "colour": 1}"#).await;
    let problem = problem.problem(422, "validation");
    let fields: Vec<_> = problem["errors"].as_array().expect("a list").iter().map(|error| &error["field"]).collect();
    for field in ["user_id", "product_name", "product_price", "colour"] {
        assert!(fields.iter().any(|named| *named == field), "{field} in {fields:?}");
    }
    let query = server.get("/products?limit=0&sort=colour&page=2").await.problem(422, "validation");
    assert_eq!(query["errors"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_body_must_be_json_with_its_content_type() {
    let server = Server::start().await;
    let plain = server.send("POST /products HTTP/1.1\nContent-Type: text/plain\nContent-Length: 2", b"{}").await;
    let problem = plain.problem(415, "unsupported_media_type");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("Content-Type: application/json")));
    for body in ["", "{", "[]", "null", "{\"user_id\": \"\u{1}\"}"] {
        let answer = server.post("/products", body).await;
        assert!(matches!(answer.status, 400 | 422), "{body:?}: {answer:?}");
    }
    let no_text = "POST /products HTTP/1.1\nContent-Type: application/json\nContent-Length: 15";
    server.send(no_text, b"{\"user_id\":\"\xff\xfe\"").await.problem(400, "malformed_json");
}

#[tokio::test]
async fn a_chunked_body_is_accepted() {
    let server = Server::start().await;
    let (first, second) = PRODUCT.split_at(40);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let head = "POST /products HTTP/1.1\nContent-Type: application/json\nTransfer-Encoding: chunked";
    assert_eq!(server.send(head, chunks.as_bytes()).await.status, 201);
}

#[tokio::test]
async fn an_invalid_query_encoding_is_400() {
    let server = Server::start().await;
    for query in ["name=%", "name=%zz", "name=%ff", "%C3%28=1"] {
        server.get(&format!("/products?{query}")).await.problem(400, "bad_request");
    }
    assert_eq!(server.get("/products?name=caf%C3%A9+au+lait").await.status, 200);
}

#[tokio::test]
async fn a_list_is_paginated_by_its_links() {
    let server = Server::start().await;
    for _ in 0..3 {
        assert_eq!(server.post("/products", PRODUCT).await.status, 201);
    }
    let mut path = "/products?limit=2&user_id=1234-5678-9012".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = server.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        pages.push(page.json()["items"].as_array().expect("a list").len());
        let link = page.header("link");
        assert_eq!(link.is_empty(), page.json()["next_cursor"].is_null());
        let Some((next, _)) = link.split_once(">; rel=\"next\"") else { break };
        path = next.trim_start_matches('<').to_owned();
        assert!(path.starts_with("/products?limit=2&user_id=1234-5678-9012&cursor="), "{path}");
    }
    assert_eq!(pages, [2, 1]);
}

#[tokio::test]
async fn a_user_is_read_by_its_percent_encoded_id() {
    let server = Server::start().await;
    let user = r#"{"id": "ü/1 +", "name": "Ü"}"#;
    let created = server.post("/users", user).await;
    assert_eq!(created.status, 201, "{created:?}");
    let found = server.get(created.header("location")).await;
    assert_eq!(found.json()["id"], "ü/1 +");
    server.post("/users", user).await.problem(409, "conflict");
    server.get("/users/unknown").await.problem(404, "not_found");
    server.get("/users/%ff").await.problem(400, "bad_request");
    assert_eq!(server.get("/users").await.json()["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_an_invalid_one_replaced() {
    let server = Server::start().await;
    for path in ["/healthz", "/nowhere", "/products/1"] {
        let kept = server.send(&format!("GET {path} HTTP/1.1\nX-Request-Id: mine-1"), b"").await;
        assert_eq!(kept.header("x-request-id"), "mine-1");
        let made = server.send(&format!("GET {path} HTTP/1.1\nX-Request-Id: two words"), b"").await;
        assert_eq!(made.header("x-request-id").len(), 36);
    }
}

#[tokio::test]
async fn an_image_is_served_whole_as_a_range_or_as_304() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let key = server.blobs.put(Bytes::from(bytes.clone()), "webp").await.expect("stored");
    let path = format!("/images/{key}");
    let tag = format!("\"{}\"", key.sha256());
    let with = async |header: &str| server.send(&format!("GET {path} HTTP/1.1\n{header}"), b"").await;

    let whole = server.get(&path).await;
    assert_eq!(whole.status, 200);
    assert!(whole.body == bytes, "the body has every byte");
    for (name, value) in [
        ("content-type", "image/webp"),
        ("content-length", "800000"),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("etag", &tag),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    let part = with("Range: bytes=5-8").await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 5-8/800000"));
    assert_eq!(part.body, bytes[5..9]);
    assert_eq!(with("Range: bytes=-3").await.body, bytes[799_997..]);
    assert_eq!(with(&format!("Range: bytes=0-0\nIf-Range: {tag}")).await.status, 206);
    assert_eq!(with("Range: bytes=0-0\nIf-Range: \"old\"").await.status, 200);
    assert_eq!(with("Range: bytes=0-0,5-6").await.status, 200);
    let outside = with("Range: bytes=800000-").await;
    outside.problem(416, "range_not_satisfiable");
    assert_eq!(outside.header("content-range"), "bytes */800000");

    let unchanged = with(&format!("If-None-Match: {tag}")).await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, tag.as_str()));
    let head = server.send(&format!("HEAD {path} HTTP/1.1"), b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "800000", 0));
    let other = path.replace(".webp", ".png");
    for missing in [with_tag(&server, &other, &tag).await, server.get(&other).await, server.get("/images/x").await] {
        missing.problem(404, "not_found");
    }
}

async fn with_tag(server: &Server, path: &str, tag: &str) -> Answer {
    server.send(&format!("GET {path} HTTP/1.1\nIf-None-Match: {tag}"), b"").await
}

#[tokio::test]
async fn the_server_reports_its_health_and_metrics() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.json(), serde_json::json!({"status": "ok"}));
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &"ready".into()));
    let components = ready.json()["components"].as_array().expect("a list").clone();
    let names: Vec<_> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    assert_eq!(names, ["database", "cache", "queue", "storage"]);
    assert!(components.iter().all(|component| component["status"] == "up" && component["latency_ms"].is_number()));
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.body, b"pm_up 1\n");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(server.get("/").await.json()["paths"].as_array().is_some_and(|paths| !paths.is_empty()));
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_supported() {
    // An error means that another test has installed a provider; the client needs any.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    let mut server = Server::start().await;
    let url = format!("http://{}", server.address);
    let create = client.post(format!("{url}/products")).header("content-type", "application/json").body(PRODUCT);
    let created = create.send().await.expect("a response");
    assert_eq!((created.status().as_u16(), created.version()), (201, http::Version::HTTP_2));
    let head = client.head(format!("{url}/products/1")).send().await.expect("a response");
    assert_eq!(head.status(), 200);
    assert_ne!(head.headers()["content-length"], "0");
    assert_eq!(head.bytes().await.expect("an end").len(), 0);
    server.stop();
    server.ended().await;
}
