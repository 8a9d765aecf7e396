//! Tests of the server's shutdown.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Answer, PRODUCT, Server};
use crate::http::Config;

/// Sends a request over a connection that stays open, and reads the response.
async fn exchange(stream: &mut TcpStream, path: &str) -> Answer {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: pm\r\n\r\n").as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.expect("a response");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let length: usize = Answer::parse(&bytes).header("content-length").parse().expect("a length");
        if bytes.len() >= end + 4 + length {
            return Answer::parse(&bytes);
        }
    }
}

#[tokio::test]
async fn a_request_in_flight_is_completed_before_shutdown() {
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
    // The server closes idle connections shortly after it starts to stop, so this waits for the shutdown to begin.
    assert_eq!(idle.read(&mut [0; 16]).await.expect("closed, not reset"), 0);
    stream.write_all(second.as_bytes()).await.expect("sent");
    let answer = Answer::last_of(stream).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("connection"), "close");
    assert!(TcpStream::connect(server.address).await.is_err(), "no new connection is accepted");
    server.ended().await;
}

#[tokio::test]
async fn a_request_sent_during_the_stop_gets_a_response() {
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
async fn a_new_connection_before_the_stop_is_served() {
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
async fn a_connection_in_the_listen_backlog_is_served() {
    let mut server = Server::start().await;
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop();
    // The runtime has only this thread, so the server stops before its event loop polls the listener again.
    let early = std::net::TcpStream::connect(server.address).expect("a connection");
    early.set_nonblocking(true).expect("a socket");
    let mut early = TcpStream::from_std(early).expect("a socket");
    early.write_all(b"GET /readyz HTTP/1.1\r\nHost: pm\r\n\r\n").await.expect("sent");
    let answer = Answer::last_of(early).await;
    assert_eq!((answer.status, &answer.json()["stopping"]), (503, &true.into()));
    server.ended().await;
}

#[tokio::test]
async fn a_slow_client_does_not_extend_the_grace_period() {
    let mut server = Server::with(Config { grace: Duration::from_millis(100), ..Config::default() }).await;
    let mut stream = server.connect().await;
    let half = "POST /products HTTP/1.1\r\nHost: pm\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    stream.write_all(half.as_bytes()).await.expect("sent");
    server.stop();
    server.ended().await;
    assert!(!matches!(stream.read(&mut [0; 16]).await, Ok(1..)), "the connection is closed without a response");
}
