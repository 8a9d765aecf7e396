//! Tests of the server's limits on clients.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Answer, PRODUCT, Server};
use crate::http::Config;

/// The head of a request to create a product, without its body.
const HALF: &[u8] =
    b"POST /products HTTP/1.1\r\nHost: pm\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";

#[tokio::test]
async fn a_body_above_the_limit_is_413_and_the_detail_names_the_limit() {
    let server = Server::with(Config { max_body: 1_000, ..Config::default() }).await;
    let body = format!("{PRODUCT}{}", " ".repeat(3_000_000));
    let problem = server.post("/products", &body).await.problem(413, "body_too_large");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("1000 bytes")), "{problem}");
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let head = "POST /products HTTP/1.1\nContent-Type: application/json\nTransfer-Encoding: chunked";
    server.send(head, chunk.as_bytes()).await.problem(413, "body_too_large");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_does_not_send_a_refused_body() {
    let server = Server::start().await;
    let head =
        "POST /products HTTP/1.1\nContent-Type: application/json\nExpect: 100-continue\nContent-Length: 9999999999";
    server.send(head, b"").await.problem(413, "body_too_large");
}

#[tokio::test]
async fn a_query_with_very_many_parameters_is_processed_quickly() {
    let server = Server::start().await;
    let began = Instant::now();
    let many = server.get(&format!("/products?{}", "a=1&".repeat(10_000))).await;
    many.problem(422, "validation");
    let same = server.get(&format!("/products?{}", "limit=1&".repeat(5_000))).await;
    same.problem(422, "validation");
    let million = server.get(&format!("/products?{}", "a&".repeat(1_000_000))).await;
    assert!((400..500).contains(&million.status), "{million:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_without_a_complete_head_is_closed() {
    let config = Config { header_timeout: Duration::from_millis(200), ..Config::default() };
    let server = Server::with(config).await;
    for begin in ["", "P", "PRI * HTTP/2.0\r\n", "GET /healthz HTTP/1.1\r\nHost: pm\r\nX-Slow: "] {
        let mut stream = server.connect().await;
        stream.write_all(begin.as_bytes()).await.expect("sent");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{begin:?} is still waited for");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let config = Config { body_timeout: Duration::from_millis(100), ..Config::default() };
    let server = Server::with(config).await;
    let mut stream = server.connect().await;
    stream.write_all(HALF).await.expect("sent");
    let answer = Answer::last_of(stream).await;
    answer.problem(408, "deadline_exceeded");
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_aborted() {
    let config = Config { deadline: Duration::from_millis(100), ..Config::default() };
    let server = Server::with(config).await;
    let mut stream = server.connect().await;
    stream.write_all(HALF).await.expect("sent");
    let answer = Answer::last_of(stream).await;
    answer.problem(503, "deadline_exceeded");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn bodies_that_do_not_arrive_hold_no_request_permits() {
    let server = Server::with(Config { max_in_flight: 1, ..Config::default() }).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(HALF).await.expect("sent");
        slow.push(stream);
    }
    for _ in 0..8 {
        assert_eq!(server.get("/products").await.status, 200);
        assert_eq!(server.post("/products", PRODUCT).await.status, 201);
    }
}

#[tokio::test]
async fn an_error_response_precedes_the_body_and_keeps_the_connection() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let body = [b' '; 400_000];
    let head = format!("POST /nowhere HTTP/1.1\r\nHost: pm\r\nContent-Length: {}\r\n\r\n", body.len());
    let began = Instant::now();
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("a response");
    assert_eq!(&status, b"HTTP/1.1 404");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // The server discards the rest of the body and serves the next request.
    stream.write_all(&body).await.expect("sent");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: pm\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("an end");
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_the_head_timeout() {
    let (head, idle) = (Duration::from_millis(200), Duration::from_millis(900));
    let server = Server::with(Config { header_timeout: head, keep_alive: idle, ..Config::default() }).await;
    let mut stream = server.connect().await;
    let mut answer = [0; 15];
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
        stream.read_exact(&mut answer).await.expect("a response");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut rest = [0; 4_096];
        let _ = stream.try_read(&mut rest);
    }
    let begun = Instant::now();
    assert_eq!(stream.read(&mut answer).await.expect("an end"), 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_later_incomplete_head_closes_the_connection() {
    let config = Config { header_timeout: Duration::from_millis(200), ..Config::default() };
    let server = Server::with(config).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.expect("a response");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHos").await.expect("sent");
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn an_unread_http_2_response_resets_only_its_stream() {
    let config = Config { stall_limit: Duration::from_millis(300), ..Config::default() };
    let server = Server::with(config).await;
    server.post("/products", PRODUCT).await;
    let mut client = h2::client::Builder::new();
    client.initial_window_size(0);
    let (mut send, connection) =
        client.handshake::<_, bytes::Bytes>(server.connect().await).await.expect("a connection");
    let driver = tokio::spawn(connection);
    for path in ["/products", "/openapi.json"] {
        let request = http::Request::get(format!("http://pm{path}")).body(()).expect("a request");
        let (answer, _) = send.send_request(request, true).expect("sent");
        let mut answer = answer.await.expect("a head");
        assert_eq!(answer.status(), 200);
        let reset = tokio::time::timeout(Duration::from_secs(10), answer.body_mut().data()).await.expect("an end");
        assert!(reset.expect("a frame").expect_err("a reset").is_reset(), "{path}");
    }
    // The connection stays open.
    let request = http::Request::head("http://pm/healthz").body(()).expect("a request");
    let (answer, _) = send.send_request(request, true).expect("sent");
    assert_eq!(answer.await.expect("a response").status(), 200);
    drop(send);
    driver.abort();
}

#[tokio::test]
async fn event_streams_have_their_own_limit_and_hold_no_request_permits() {
    let server = Server::with(Config { max_in_flight: 1, max_streams: 1, ..Config::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    let refused = server.get("/events").await;
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(server.get("/products").await.status, 200);
    drop(stream);
    while server.send("HEAD /events HTTP/1.1", b"").await.status != 200 {}
}

#[tokio::test]
async fn a_client_may_open_an_eighth_of_the_event_streams() {
    let server = Server::with(Config { max_streams: 16, ..Config::default() }).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.expect("a head");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        streams.push(stream);
    }
    let refused = server.get("/events").await;
    let problem = refused.problem(429, "rate_limited");
    assert_eq!(problem["detail"], "a client may have at most 2 event streams open; close one first");
    streams.pop();
    while server.send("HEAD /events HTTP/1.1", b"").await.status != 200 {}
}

#[tokio::test]
async fn slow_clients_do_not_lock_out_others() {
    let server = Server::with(Config { max_connections: 4, ..Config::default() }).await;
    let mut slow = Vec::new();
    for begin in [b"".as_slice(), b"GET / HT", HALF, HALF] {
        let mut stream = server.connect().await;
        stream.write_all(begin).await.expect("sent");
        slow.push(stream);
    }
    for _ in 0..8 {
        assert_eq!(server.get("/products").await.status, 200);
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_500_and_the_server_continues() {
    let server = Server::over(Config::default(), Arc::new(|| panic!("the secret of the metrics"))).await;
    let answer = server.get("/metrics").await;
    answer.problem(500, "internal");
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn bytes_that_are_not_http_get_a_4xx_or_a_closed_connection() {
    let server = Server::start().await;
    for noise in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[0; 100]] {
        let mut stream = server.connect().await;
        stream.write_all(noise).await.expect("sent");
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("closed");
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(server.get("/healthz").await.status, 200);
}
