//! Slow clients lose their connections; all others are served meanwhile.

use std::time::{Duration, Instant};

use pm::http;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Server;
use crate::support::on_both_setups;

const HALF_A_HEAD: &[u8] = b"GET /products HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
const HALF_A_BODY: &[u8] =
    b"POST /products HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"user";

/// Opens a connection, sends `begin` and waits until the server closes it; returns the received bytes.
async fn until_closed(server: &Server, begin: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(begin).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    ended.expect("the server closes the connection").unwrap();
    String::from_utf8(answer).unwrap()
}

on_both_setups! {
    async fn only_slow_clients_lose_their_connections(app: &TestApp) {
        let limit = Duration::from_millis(700);
        let config = http::Config { header_timeout: limit, body_timeout: limit, ..http::Config::default() };
        let server = Server::start(app, config).await;
        let id = app.create(&[]).await["id"].clone();
        let slow = futures_util::future::join_all((0..60).map(|number| {
            let begin = [HALF_A_HEAD, HALF_A_BODY, b""][number % 3];
            until_closed(&server, begin)
        }));
        let others = async {
            let path = format!("http://{}/products/{id}", server.address);
            for _ in 0..50 {
                let began = Instant::now();
                assert_eq!(app.client.get(&path).send().await.unwrap().status(), 200);
                assert!(began.elapsed() < Duration::from_secs(1), "a good client waited {:?}", began.elapsed());
            }
        };
        let began = Instant::now();
        let (answers, ()) = tokio::join!(slow, others);
        assert!(began.elapsed() < Duration::from_secs(5), "they were closed after {:?}", began.elapsed());
        for (number, answer) in answers.iter().enumerate() {
            match number % 3 {
                1 => {
                    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"deadline_exceeded\""), "{answer}")
                }
                _ => assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}"),
            }
        }
        server.stop().await;
    }
}
