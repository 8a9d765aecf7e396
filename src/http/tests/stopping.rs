//! How the server ends.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Answer, PRODUCT, Server};
use crate::http::Config;

/// Sends a request over a connection that stays open, and reads its answer's head and body in one piece.
async fn exchange(stream: &mut TcpStream, path: &str) -> Answer {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: pm\r\n\r\n").as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.expect("an answer");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let length: usize = Answer::parse(&bytes).header("content-length").parse().expect("a length");
        if bytes.len() >= end + 4 + length {
            return Answer::parse(&bytes);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_before_the_end() {
    let mut server = Server::start().await;
    let mut idle = server.connect().await;
    assert_eq!(exchange(&mut idle, "/healthz").await.status, 200);
    let mut stream = server.connect().await;
    let (first, second) = PRODUCT.split_at(20);
    let head = "POST /products HTTP/1.1\r\nHost: pm\r\nContent-Type: application/json";
    stream
        .write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{first}", PRODUCT.len()).as_bytes())
        .await
        .expect("sent");

    server.stop();
    // Idle connections are closed a moment later: their end is the sign that the server has begun to stop.
    assert_eq!(idle.read(&mut [0; 16]).await.expect("closed, not reset"), 0);
    stream.write_all(second.as_bytes()).await.expect("sent");
    let answer = Answer::last_of(stream).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("connection"), "close");
    assert!(TcpStream::connect(server.address).await.is_err(), "no new connection is taken");
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_crosses_the_stop_on_its_way_is_answered() {
    let mut server = Server::start().await;
    let mut idle = server.connect().await;
    assert_eq!(exchange(&mut idle, "/healthz").await.header("connection"), "");
    server.stop();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    idle.write_all(b"GET /readyz HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
    let answer = Answer::last_of(idle).await;
    assert_eq!((answer.status, answer.header("connection")), (503, "close"));
    assert_eq!(answer.json()["stopping"], true);
    server.ended().await;
}

#[tokio::test]
async fn a_connection_that_was_just_made_is_still_answered() {
    let mut server = Server::start().await;
    let mut early = server.connect().await;
    server.stop();
    early.write_all(b"GET /readyz HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
    let answer = Answer::last_of(early).await;
    assert_eq!((answer.status, &answer.json()["status"]), (503, &"unready".into()));
    assert_eq!(answer.json()["stopping"], true);
    server.ended().await;
}

#[tokio::test]
async fn a_connection_that_the_event_loop_has_not_seen_is_still_answered() {
    let mut server = Server::start().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop();
    // The test's thread is the runtime's only one, so the server stops before its event loop looks at the listener again.
    let early = std::net::TcpStream::connect(server.address).expect("a connection");
    early.set_nonblocking(true).expect("a socket");
    let mut early = TcpStream::from_std(early).expect("a socket");
    early.write_all(b"GET /readyz HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
    let answer = Answer::last_of(early).await;
    assert_eq!((answer.status, &answer.json()["stopping"]), (503, &true.into()));
    server.ended().await;
}

#[tokio::test]
async fn the_grace_is_not_prolonged_by_a_slow_client() {
    let mut server = Server::with(Config { grace: Duration::from_millis(100), ..Config::default() }).await;
    let mut stream = server.connect().await;
    let half = "POST /products HTTP/1.1\r\nHost: pm\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    stream.write_all(half.as_bytes()).await.expect("sent");
    server.stop();
    server.ended().await;
    assert!(!matches!(stream.read(&mut [0; 16]).await, Ok(1..)), "the connection is closed without an answer");
}
