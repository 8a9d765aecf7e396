//! Accepted hosts, and origins whose pages may change data.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    api::wire,
    support::{Setup, TestApp, app, on_both_setups},
};

const PRODUCT: &[u8] = br#"{"user_id": "u", "product_name": "Lamp", "product_price": 1}"#;
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Sends `head` unchanged, plus headers that close the connection; returns status and body.
async fn exchange(address: SocketAddr, head: &str) -> (u16, String) {
    let request = format!("{head}Connection: close\r\n\r\n");
    let answer = wire::exchange(address, request.as_bytes()).await;
    (answer.status, answer.text())
}

async fn status_for(app: &TestApp, host: &str) -> u16 {
    let (status, body) = exchange(app.address, &format!("GET /products HTTP/1.1\r\nHost: {host}\r\n")).await;
    assert!(status != 421 || body.contains("\"misdirected\"") && body.contains("does not answer for host"), "{body}");
    assert!(!body.contains("PM_"), "a client does not need the names of settings: {body}");
    status
}

/// Sends bytes and reads until the connection closes or breaks.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut received = Vec::new();
    let mut piece = [0; 4_096];
    while let Ok(length) = stream.read(&mut piece).await
        && length > 0
    {
        received.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(received).unwrap()
}

/// Checks that `answer` is a problem with the same request id in header and body.
fn is_explained(answer: &str, status: u16, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let header =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(header("content-type:"), "application/problem+json", "{head}");
    assert_eq!(header("content-length:"), body.len().to_string(), "{head}");
    assert_eq!(header("x-content-type-options:"), "nosniff", "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()));
    assert!(!header("x-request-id:").is_empty() && problem["request_id"] == header("x-request-id:"), "{head}");
}

on_both_setups! {
    async fn a_request_names_exactly_one_well_formed_host(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        app.product(&id).await;
        for path in ["/healthz".to_owned(), "/products".into(), format!("/products/{id}")] {
            for headers in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: \r\n", "Host: a b\r\n", "Host: a@b\r\n", "Host: a:b\r\n"]
            {
                let (status, body) = exchange(app.address, &format!("GET {path} HTTP/1.1\r\n{headers}")).await;
                assert_eq!(status, 400, "{path} with {headers:?}: {body}");
                assert!(body.contains("\"bad_request\"") && body.contains("request_id"), "{body}");
            }
            let old = exchange(app.address, &format!("GET {path} HTTP/1.0\r\n")).await;
            assert_eq!(old.0, 200, "HTTP/1.0 needs no host: {}", old.1);
        }
    }

    async fn a_loopback_server_refuses_other_hosts(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        // The cached product as well.
        app.product(&id).await;
        for host in ["localhost", "LocalHost:8080", "127.0.0.1", "[::1]:8080", "app.localhost"] {
            assert_eq!(status_for(app, host).await, 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "pm"] {
            assert_eq!(status_for(app, host).await, 421, "{host}");
        }
        let cached = exchange(app.address, &format!("GET /products/{id} HTTP/1.1\r\nHost: evil.example\r\n")).await;
        assert_eq!(cached.0, 421, "{}", cached.1);
        let absolute = exchange(app.address, "GET http://evil.example/products HTTP/1.1\r\nHost: localhost\r\n").await;
        assert_eq!(absolute.0, 421, "the target overrides the header");
        let client = reqwest::Client::builder()
            .no_proxy()
            .http2_prior_knowledge()
            .resolve("evil.example", app.address)
            .resolve("localhost", app.address)
            .build()
            .unwrap();
        for (host, status) in [("evil.example", 421), ("localhost", 200)] {
            let url = format!("http://{host}:{}/products", app.address.port());
            let answer = client.get(url).send().await.unwrap();
            assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, status), "{host}");
        }
    }

    async fn a_cross_origin_page_changes_nothing(app: &TestApp) {
        let own = format!("http://{}", app.address);
        let post = async |headers: &[(&str, &str)]| {
            let host = app.address.to_string();
            let mut head = format!("POST /products HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", PRODUCT.len());
            for (name, value) in headers.iter().chain([&JSON]) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let request = [format!("{head}Connection: close\r\n\r\n").as_bytes(), PRODUCT].concat();
            wire::exchange(app.address, &request).await
        };
        for foreign in [
            &[("Origin", "https://evil.example")][..],
            &[("Origin", "null")],
            &[("Origin", "http://127.0.0.1:1")],
            &[("Sec-Fetch-Site", "cross-site")],
            &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")],
        ] {
            let refused = post(foreign).await;
            assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("foreign_origin")), "{foreign:?}");
        }
        assert_eq!(app.number("SELECT count(*) FROM products").await, 0);
        for own in [&[][..], &[("Origin", own.as_str())], &[("Sec-Fetch-Site", "same-origin")], &[("Sec-Fetch-Site", "none")]] {
            assert_eq!(post(own).await.status, 201, "{own:?}");
        }
        let evil = [("Origin", "https://evil.example")];
        for (method, path) in [("DELETE", "/products/1"), ("PATCH", "/products/1"), ("POST", "/queue/dead/1/retry")] {
            assert_eq!(wire::send(app.address, method, path, &evil, b"").await.status, 403, "{method} {path}");
        }
        let read = wire::get_with(app, "/products", &evil).await;
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, ""), "CORS limits its reads");
    }

    async fn a_malformed_request_head_gets_a_problem(app: &TestApp) {
        is_explained(&raw(app.address, b"invalid\r\n\r\n").await, 400, "bad_request");
        is_explained(&raw(app.address, b"GET / HTTP/1.1\r\nHost: localhost\r\nbad name: x\r\n\r\n").await, 400, "bad_request");
        let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(65_600));
        let answer = raw(app.address, long.as_bytes()).await;
        let status = if answer.starts_with("HTTP/1.1 414") { 414 } else { 431 };
        is_explained(&answer, status, "head_too_large");
        let many = "x: 1\r\n".repeat(200);
        let answer = raw(app.address, format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes()).await;
        is_explained(&answer, 431, "head_too_large");
        // A second head on a connection whose first request was answered.
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 1_024];
        let length = stream.read(&mut first).await.unwrap();
        assert!(first[..length].starts_with(b"HTTP/1.1 200 "));
        stream.write_all(b"invalid\r\n\r\n").await.unwrap();
        let mut second = String::new();
        stream.read_to_string(&mut second).await.unwrap();
        is_explained(&second, 400, "bad_request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_a_container_accepts_private_host_names() {
    let settings = [("PM_LISTEN", "0.0.0.0:8080"), ("PM_AUTH", "off")];
    app::run_with(Setup::Embedded, &settings, async |app| {
        for host in ["pm", "pm:8080", "10.1.2.3", "[2001:db8::1]", "pm.shop.svc.cluster.local", "localhost"] {
            assert_eq!(status_for(app, host).await, 200, "{host}");
        }
        assert_eq!(status_for(app, "evil.example").await, 421);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_hosts_and_origins_are_accepted() {
    let settings = [
        ("PM_ALLOWED_HOSTS", "shop.example, 10.0.0.1"),
        ("PM_PUBLIC_URL", "https://www.shop.example"),
        ("PM_CORS_ORIGINS", "https://page.example"),
    ];
    app::run_with(Setup::Embedded, &settings, async |app| {
        for host in ["shop.example", "SHOP.example:443", "www.shop.example", "10.0.0.1", "localhost"] {
            assert_eq!(status_for(app, host).await, 200, "{host}");
        }
        assert_eq!(status_for(app, "evil.example").await, 421);
        for (origin, status) in
            [("https://page.example", 201), ("https://www.shop.example", 201), ("https://shop.example", 403)]
        {
            let answer = wire::send(app.address, "POST", "/products", &[JSON, ("Origin", origin)], PRODUCT).await;
            assert_eq!(answer.status, status, "{origin}: {}", answer.text());
        }
    })
    .await;
    app::run_with(Setup::Embedded, &[("PM_ALLOWED_HOSTS", "*")], async |app| {
        assert_eq!(status_for(app, "evil.example").await, 200);
    })
    .await;
}
