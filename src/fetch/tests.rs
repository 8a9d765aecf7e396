//! Tests the downloader against a raw TCP server on the loopback address.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    code::ErrorCode,
    domain::address::Refusal,
    retry::{DOUBTFUL, TRANSIENT},
};

/// What the server does after it has read a request.
#[derive(Clone)]
enum Act {
    /// Writes these bytes and closes.
    Say(String),
    /// Writes these bytes and then nothing more.
    SayAndStall(String),
    /// Writes these bytes, then one more byte every 10 ms.
    SayAndDrip(String),
    /// Closes with a reset.
    Reset,
}

/// Test server: acts by the request's path and records every request head.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, act) = (heads.clone(), Arc::new(act));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, kept.clone(), act.clone()));
            }
        });
        Self { address, heads }
    }

    async fn saying(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |_| Act::Say(answer.clone())).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic in the server").clone()
    }
}

async fn serve(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>, act: Arc<impl Fn(&str) -> Act>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().expect("no panic in the server").push(head);
    match act(&path) {
        Act::Say(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Act::SayAndStall(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
            // Ends when the client disconnects.
            let _ = stream.read_u8().await;
        }
        Act::SayAndDrip(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            while stream.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        }
        Act::Reset => stream.set_zero_linger().expect("a socket"),
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

fn status(code: u16, more: &str) -> String {
    format!("HTTP/1.1 {code} Whatever\r\n{more}Content-Length: 0\r\n\r\n")
}

/// Permits only 127.0.0.1; other loopback addresses act as the private network.
fn config() -> Config {
    Config { policy: AddressPolicy::parse("127.0.0.1").expect("a valid list"), max_bytes: 1_000, ..Config::default() }
}

async fn fetch_with(config: &Config, url: &str) -> Result<Bytes, Error> {
    Fetcher::new(config).expect("a client").fetch(url).await
}

async fn code_of(url: &str) -> ErrorCode {
    fetch_with(&config(), url).await.expect_err("a failure").code()
}

#[tokio::test]
async fn a_download_returns_the_exact_bytes() {
    let server = Server::saying(ok("image")).await;
    assert_eq!(fetch_with(&config(), &server.url("/a.jpg?x=1")).await.expect("bytes"), "image");
    let heads = server.heads();
    let head = heads[0].to_lowercase();
    assert!(head.starts_with("get /a.jpg?x=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nuser-agent: pm/{}\r\n", env!("CARGO_PKG_VERSION"))), "{head}");
    assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
}

#[tokio::test]
async fn a_chunked_body_without_a_length_is_read_to_its_end() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nimag\r\n1\r\ne\r\n0\r\n\r\n";
    let server = Server::saying(answer).await;
    assert_eq!(fetch_with(&config(), &server.url("/")).await.expect("bytes"), "image");
}

#[tokio::test]
async fn a_compressed_body_is_not_unpacked() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\npacked";
    let server = Server::saying(answer).await;
    assert_eq!(fetch_with(&config(), &server.url("/")).await.expect("bytes"), "packed");
}

#[tokio::test]
async fn a_private_address_is_refused_without_a_connection() {
    let server = Server::saying(ok("secret")).await;
    let error = fetch_with(&Config::default(), &server.url("/")).await.expect_err("a private address");
    assert_eq!((error.code(), error.retry()), (ErrorCode::AddressRefused, None));
    assert_eq!(error.to_string(), "127.0.0.1 is a private address");
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn a_name_with_private_addresses_is_refused_without_a_connection() {
    let server = Server::saying(ok("secret")).await;
    let url = format!("http://localhost:{}/", server.address.port());
    // The other loopback address permits the name; its other addresses stay refused.
    let open = Config { policy: AddressPolicy::parse("::1").expect("a valid list"), ..Config::default() };
    let error = fetch_with(&open, &url).await.expect_err("nothing listens at ::1");
    assert!(matches!(error, Error::NotPublic { .. } | Error::Connect { .. }), "{error:?}");

    let guard = Arc::new(resolver::PublicOnly::new(AddressPolicy::default()));
    let client = Client::builder().no_proxy().dns_resolver(guard).build().expect("a client");
    let failed = client.get(&url).send().await.expect_err("no address is left");
    let error = within_connection(Host::of(&Url::parse(&url).expect("a URL")), failed);
    assert_eq!((error.code(), error.retry()), (ErrorCode::AddressRefused, None));
    assert!(error.to_string().ends_with("has no public address"), "{error}");
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn a_missing_host_is_not_reported_as_refused() {
    let error = fetch_with(&config(), "http://no-such-host.invalid/a.jpg").await.expect_err("the name is reserved");
    // Without a network no DNS server answers.
    match error.code() {
        ErrorCode::HostNotFound => assert_eq!(error.retry(), Some(DOUBTFUL)),
        code => assert_eq!((code, error.retry()), (ErrorCode::DnsFailed, Some(TRANSIENT)), "{error:?}"),
    }
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_limit_without_a_referer() {
    let server = Server::start(|path| match path {
        "/dir/3" => Act::Say(redirect("2")),
        "/dir/2" => Act::Say(redirect("/1?q")),
        "/1?q" => Act::Say(redirect("/0").replace("302", "308").replace("Content", "Set-Cookie: a=b\r\nContent")),
        "/0" => Act::Say(ok("image")),
        _ => Act::Say(redirect("/dir/3")),
    })
    .await;
    assert_eq!(fetch_with(&config(), &server.url("/dir/3")).await.expect("bytes"), "image");
    for head in server.heads() {
        let head = head.to_lowercase();
        assert!(!head.contains("referer") && !head.contains("cookie"), "{head}");
    }
    let error = fetch_with(&config(), &server.url("/dir/4")).await.expect_err("four redirects");
    assert_eq!((error.code(), error.retry()), (ErrorCode::RedirectRefused, None));
}

#[tokio::test]
async fn a_redirect_loop_ends_at_the_limit() {
    let server = Server::saying(redirect("/again")).await;
    assert_eq!(code_of(&server.url("/")).await, ErrorCode::RedirectRefused);
    assert_eq!(server.heads().len(), 4);
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let private = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
    let port = private.local_addr().expect("an address").port();
    for host in ["127.0.0.2", "2130706434", "0x7f.2", "[::ffff:127.0.0.2]"] {
        let server = Server::saying(redirect(&format!("http://{host}:{port}/"))).await;
        let error = fetch_with(&config(), &server.url("/")).await.expect_err("a private address");
        assert!(matches!(error, Error::Redirect(Refusal::PrivateAddress(_))), "{host}: {error:?}");
        assert_eq!((error.code(), error.retry()), (ErrorCode::AddressRefused, None));
    }
    let connected = timeout(Duration::from_millis(50), private.accept()).await;
    assert!(connected.is_err(), "something connected to the private address");
}

#[tokio::test]
async fn a_redirect_to_another_scheme_or_with_a_password_is_not_followed() {
    for (target, refusal) in [
        ("file:///etc/passwd", Refusal::Scheme),
        ("ftp://127.0.0.1/", Refusal::Scheme),
        ("http://user:pw@127.0.0.1/", Refusal::Userinfo),
    ] {
        let server = Server::saying(redirect(target)).await;
        match fetch_with(&config(), &server.url("/")).await.expect_err("a refusal") {
            Error::Redirect(found) => assert_eq!(found, refusal, "{target}"),
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_redirect_without_a_target_is_refused() {
    for answer in [status(302, ""), status(304, ""), status(301, "Location: http://\r\n")] {
        let server = Server::saying(answer).await;
        assert_eq!(code_of(&server.url("/")).await, ErrorCode::RedirectRefused);
    }
}

#[tokio::test]
async fn an_announced_size_over_the_limit_is_refused_before_a_byte_is_read() {
    let server = Server::start(|_| Act::SayAndStall("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n".into())).await;
    let error = fetch_with(&config(), &server.url("/")).await.expect_err("too large");
    assert_eq!((error.code(), error.retry()), (ErrorCode::TooLarge, None));
    assert_eq!(error.to_string(), "the image has 1001 bytes; the limit is 1000 bytes");
}

#[tokio::test]
async fn bytes_are_counted_where_no_size_is_announced() {
    let exact = Server::saying(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_000))).await;
    assert_eq!(fetch_with(&config(), &exact.url("/")).await.expect("bytes").len(), 1_000);
    let over = Server::start(|_| Act::SayAndStall(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_001)))).await;
    let error = fetch_with(&config(), &over.url("/")).await.expect_err("too large");
    assert!(matches!(error, Error::TooLarge { bytes: None, max_bytes: 1_000 }), "{error:?}");
}

#[tokio::test]
async fn a_silent_host_times_out_before_and_within_its_answer() {
    let config =
        Config { connect_timeout: Duration::from_millis(100), idle_timeout: Duration::from_millis(100), ..config() };
    for words in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"] {
        let server = Server::start(move |_| Act::SayAndStall(words.into())).await;
        let error = fetch_with(&config, &server.url("/")).await.expect_err("silence");
        assert!(matches!(error, Error::Silent { .. }), "{error:?}");
        assert_eq!((error.code(), error.retry()), (ErrorCode::TimedOut, Some(TRANSIENT)));
    }
}

#[tokio::test]
async fn a_slow_body_hits_the_total_time_limit() {
    let config = Config { timeout: Duration::from_millis(200), ..config() };
    let server = Server::start(|_| Act::SayAndDrip("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n".into())).await;
    let error = fetch_with(&config, &server.url("/")).await.expect_err("too slow");
    assert!(matches!(error, Error::Slow { .. }), "{error:?}");
    assert_eq!((error.code(), error.retry()), (ErrorCode::TimedOut, Some(TRANSIENT)));
}

#[tokio::test]
async fn broken_connections_are_transient() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("an address");
    let short = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort").await;
    let cut_chunk = Server::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nshort").await;
    let reset = Server::start(|_| Act::Reset).await;
    let nothing = Server::saying("").await;
    let no_http = Server::saying("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    for url in [
        format!("http://{closed}/"),
        short.url("/"),
        cut_chunk.url("/"),
        reset.url("/"),
        nothing.url("/"),
        no_http.url("/"),
    ] {
        let error = fetch_with(&config(), &url).await.expect_err("a broken connection");
        assert_eq!((error.code(), error.retry()), (ErrorCode::ConnectFailed, Some(TRANSIENT)), "{error:?}");
    }
}

#[tokio::test]
async fn a_host_without_tls_has_its_own_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read_u8().await;
        }
    });
    let error = fetch_with(&config(), &format!("https://{address}/")).await.expect_err("no TLS");
    assert_eq!((error.code(), error.retry()), (ErrorCode::TlsFailed, Some(TRANSIENT)), "{error:?}");
}

#[tokio::test]
async fn retry_after_of_a_busy_host_is_reported() {
    let server = Server::saying(status(503, "Retry-After: 7\r\n")).await;
    let error = fetch_with(&config(), &server.url("/")).await.expect_err("503");
    assert_eq!((error.code(), error.retry_after()), (ErrorCode::SourceUnavailable, Some(Duration::from_secs(7))));

    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(600));
    let server = Server::saying(status(429, &format!("Retry-After: {date}\r\n"))).await;
    let wait = fetch_with(&config(), &server.url("/")).await.expect_err("429").retry_after().expect("a date").as_secs();
    assert!((590..=600).contains(&wait), "{wait}");

    let server = Server::saying(status(404, "Retry-After: 7\r\n")).await;
    let error = fetch_with(&config(), &server.url("/")).await.expect_err("404");
    assert_eq!((error.code(), error.retry_after()), (ErrorCode::SourceNotFound, None));
}

#[tokio::test]
async fn no_error_message_contains_the_path_or_the_query() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("an address");
    let missing = Server::saying(status(404, "")).await;
    let looping = Server::start(|path| Act::Say(redirect(path))).await;
    let short = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort").await;
    for base in [format!("http://{closed}"), missing.url(""), looping.url(""), short.url("")] {
        let error = fetch_with(&config(), &format!("{base}/private?token=secret")).await.expect_err("a failure");
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            let text = error.to_string();
            assert!(!text.contains("secret") && !text.contains("private"), "{text}");
            cause = error.source();
        }
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
