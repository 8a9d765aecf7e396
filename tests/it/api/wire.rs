//! Sends requests exactly as written, without a client that normalizes paths, bodies and headers.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{TestApp, contract};

/// A response with its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns a header's value; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Sends a GET of `path`.
pub async fn get(app: &TestApp, path: &str) -> Answer {
    get_with(app, path, &[]).await
}

/// Sends a GET of `path` with these headers.
pub async fn get_with(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(app.address, "GET", path, headers, b"").await
}

/// Posts `json` unchanged.
pub async fn post(app: &TestApp, path: &str, json: impl AsRef<[u8]>) -> Answer {
    send(app.address, "POST", path, &[("Content-Type", "application/json")], json.as_ref()).await
}

/// Sends one request over a new connection, with a Content-Length if it has a body.
pub async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    if !chunked && (!body.is_empty() || method == "POST") {
        request.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    let answer = exchange(address, &request).await;
    let plain = if answer.header("content-encoding").is_empty() { &answer.body[..] } else { b"" };
    contract::check(method, path, answer.status, answer.header("content-type"), plain);
    answer
}

/// Sends `bytes` and reads until the server closes the connection.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let talk = async {
        stream.write_all(bytes).await.unwrap();
        last(&mut stream).await
    };
    tokio::time::timeout(Duration::from_secs(60), talk).await.expect("an answer within a minute")
}

/// Reads the response on a connection that the server closes after it.
pub async fn last(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer but {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(':').unwrap()).map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    Answer { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
}
