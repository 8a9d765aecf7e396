//! An image server for tests that can misbehave like real ones.
//!
//! Special paths, on every origin: `/status/{code}?retry-after={seconds}`, `/redirect/{n}?to={url}` (n redirects, the
//! last one to `to`), `/redirect-to?url={url}`, `/redirect-loop`, `/stall` (no response), `/drip` (a byte every 50 ms),
//! `/endless` (an endless body), `/reset` (a reset connection), `/short` (announces 1,000 bytes, sends 10),
//! `/gzip-bomb` (64 KiB that decompress to 64 MiB of zeros). `retry-after` may also be a date. Every other path returns
//! the bytes from [`Origin::serve`], or 404; with `?first-over={seconds}` the first response takes that long.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http_body_util::StreamBody;
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A server on its own port, which stops on drop.
pub struct Origin {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    paths: Mutex<HashMap<String, Path>>,
    /// Notified when a counter or a hold changes.
    changed: watch::Sender<()>,
}

/// The state of one path.
#[derive(Clone, Default)]
struct Path {
    content: Option<(String, Bytes)>,
    hits: usize,
    failures_left: usize,
    failure: u16,
    held: bool,
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

impl Origin {
    /// Starts a server on a free loopback port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State { paths: Mutex::default(), changed: watch::Sender::new(()) });
        let task = tokio::spawn(accept(listener, state.clone()));
        Self { address, state, task }
    }

    /// Returns the URL of `path`, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Serves these bytes at `path` from now on.
    pub fn serve(&self, path: &str, content_type: &str, bytes: impl Into<Bytes>) {
        self.state.update(path, |known| known.content = Some((content_type.to_owned(), bytes.into())));
    }

    /// Answers the next `times` requests of `path` with `status`, then as before.
    pub fn fail_first(&self, path: &str, times: usize, status: u16) {
        self.state.update(path, |known| (known.failures_left, known.failure) = (times, status));
    }

    /// Makes every request of `path` wait until [`release`](Self::release).
    pub fn hold(&self, path: &str) {
        self.state.update(path, |known| known.held = true);
    }

    /// Answers the waiting and the later requests of `path`.
    pub fn release(&self, path: &str) {
        self.state.update(path, |known| known.held = false);
    }

    /// Returns the number of requests of `path`; queries are ignored.
    pub fn hits(&self, path: &str) -> usize {
        self.state.known(path).hits
    }

    /// Returns once at least `hits` requests of `path` have arrived.
    ///
    /// # Panics
    /// If they have not arrived within 30 s.
    pub async fn wait_for_hits(&self, path: &str, hits: usize) {
        let enough = self.state.until(path, |known| known.hits >= hits);
        let arrived = tokio::time::timeout(Duration::from_secs(30), enough).await;
        assert!(arrived.is_ok(), "{path} was requested {} times, not {hits}", self.hits(path));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn paths(&self) -> MutexGuard<'_, HashMap<String, Path>> {
        self.paths.lock().expect("nothing panics while it holds this")
    }

    fn known(&self, path: &str) -> Path {
        self.paths().get(path).cloned().unwrap_or_default()
    }

    fn update<T>(&self, path: &str, change: impl FnOnce(&mut Path) -> T) -> T {
        let result = change(self.paths().entry(path.to_owned()).or_default());
        self.changed.send_replace(());
        result
    }

    async fn until(&self, path: &str, reached: impl Fn(&Path) -> bool) {
        let mut changes = self.changed.subscribe();
        while !reached(&self.known(path)) {
            changes.changed().await.expect("the sender lives as long as this state");
        }
    }

    /// Counts a request and takes one of the remaining failures.
    fn arrive(&self, path: &str) -> Option<u16> {
        self.update(path, |known| {
            known.hits += 1;
            let fails = known.failures_left > 0;
            known.failures_left = known.failures_left.saturating_sub(1);
            fails.then_some(known.failure)
        })
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(serve(stream, state.clone())); }
                Err(error) => panic!("the test's origin cannot accept: {error}"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    const RESET: &[u8] = b"GET /reset ";
    let mut head = [0; RESET.len()];
    if stream.peek(&mut head).await.is_ok_and(|_| head == RESET) {
        state.arrive("/reset");
        // With a linger time of zero, closing sends a reset.
        stream.set_zero_linger().expect("an open socket");
        return;
    }
    let handle = service_fn(move |request| answer(request, state.clone()));
    // One request per connection, so that its first bytes tell whether to reset it.
    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), handle).await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let failure = state.arrive(&path);
    state.until(&path, |known| !known.held).await;
    if let Some(status) = failure {
        return Ok(plain(status));
    }
    let query = |name: &str| {
        let pairs = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    Ok(match (parts.next().unwrap_or_default(), parts.next()) {
        ("status", Some(code)) => status(code, query("retry-after")),
        ("redirect", Some(left)) => redirect_chain(left, query("to")),
        ("redirect-to", None) => redirect(&query("url").unwrap_or_default()),
        ("redirect-loop", None) => redirect("/redirect-loop"),
        ("stall", None) => std::future::pending().await,
        ("drip", None) => streamed(None, drip().boxed()),
        ("endless", None) => streamed(None, stream::repeat(Bytes::from_static(&[b'x'; 16 * 1024])).boxed()),
        ("gzip-bomb", None) => gzip_bomb(),
        ("short", None) => streamed(Some(1_000), stream::iter([Bytes::from_static(b"only these")]).boxed()),
        _ => match state.known(&path).content {
            Some((content_type, bytes)) => match query("first-over").filter(|_| state.known(&path).hits == 1) {
                Some(seconds) => slowly(&content_type, bytes, seconds.parse().expect("the test names a number")),
                None => content(&content_type, bytes),
            },
            None => plain(404),
        },
    })
}

fn status(code: &str, retry_after: Option<String>) -> Response<Body> {
    let mut response = plain(code.parse().expect("the test names a status"));
    if let Some(wish) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, wish.parse().expect("a header's value"));
    }
    response
}

fn redirect_chain(left: &str, to: Option<String>) -> Response<Body> {
    let left: usize = left.parse().expect("the test names a number of redirects");
    let to = to.unwrap_or_else(|| "/photo.jpg".to_owned());
    if left <= 1 {
        return redirect(&to);
    }
    let query: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("to", &to).finish();
    redirect(&format!("/redirect/{}?{query}", left - 1))
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = plain(302);
    response.headers_mut().insert(header::LOCATION, to.parse().expect("a header's value"));
    response
}

fn plain(status: u16) -> Response<Body> {
    let mut response = content("text/plain", Bytes::new());
    *response.status_mut() = StatusCode::from_u16(status).expect("the test names a status");
    response
}

fn content(content_type: &str, bytes: Bytes) -> Response<Body> {
    let mut response = streamed(Some(bytes.len()), stream::iter([bytes]).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().expect("a header's value"));
    response
}

/// Sends the content in four pieces per second, for this many seconds.
fn slowly(content_type: &str, bytes: Bytes, seconds: usize) -> Response<Body> {
    let size = bytes.len().div_ceil(seconds * 4).max(1);
    let pieces: Vec<_> = (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..bytes.len().min(at + size))).collect();
    let tick = tokio::time::interval(Duration::from_millis(250));
    let pieces = stream::unfold((pieces.into_iter(), tick), |(mut pieces, mut tick)| async move {
        tick.tick().await;
        pieces.next().map(|piece| (piece, (pieces, tick)))
    });
    let mut response = streamed(Some(bytes.len()), pieces.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().expect("a header's value"));
    response
}

fn streamed(length: Option<usize>, bytes: BoxStream<'static, Bytes>) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(bytes.map(|bytes| Ok(Frame::data(bytes))).boxed()));
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

fn gzip_bomb() -> Response<Body> {
    let mebibyte = vec![0; 1 << 20];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        packed.write_all(&mebibyte).expect("memory takes everything");
    }
    let mut response = content("image/png", Bytes::from(packed.finish().expect("memory takes everything")));
    response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    response
}

fn drip() -> impl futures_util::Stream<Item = Bytes> {
    stream::unfold(tokio::time::interval(Duration::from_millis(50)), |mut tick| async move {
        tick.tick().await;
        Some((Bytes::from_static(b"x"), tick))
    })
}
