//! Cost of reading a cached product, compared with a bare hyper server that returns the same bytes: both over one
//! keep-alive connection to 127.0.0.1, in the same run. Each server has its own thread, whose CPU time is reported as
//! well.
//!
//! `cargo bench --bench cached_get`; the last lines are the ratios.

use std::{
    convert::Infallible,
    fs, future, io,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pm::{
    blobs::{self, Blobs},
    cache::{self, Cache},
    catalog::{self, Catalog, Engines},
    db::{self, Database},
    domain::{AddressPolicy, NewProduct},
    health::Health,
    http::{Config, ImageDelivery, Originals, Placeholder, State, serve},
    queue::{self, Queue},
    resize::{ResizeConfig, Resizer},
    telemetry::Metrics,
};
use tokio::net::TcpListener;
use tracing_subscriber::{
    Layer as _, filter::dynamic_filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

const PRODUCT: &str = r#"{"user_id": "1234-5678-9012", "product_name": "Sample Product",
    "product_description": "A test product.", "product_price": 100.0,
    "product_images": ["https://example.com/image1.jpg", "https://example.com/image2.jpg"]}"#;

/// Whether log lines are formatted at the moment; they are discarded.
static LOGGING: AtomicBool = AtomicBool::new(false);

/// A server that runs on its own thread.
struct Server {
    name: &'static str,
    path: String,
    address: SocketAddr,
    /// The file in `/proc` with the thread's CPU time.
    schedstat: String,
}

/// A kept-alive connection.
struct Client {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
}

/// The cost of a round of requests.
struct Took {
    wall: Duration,
    server_cpu: Duration,
}

fn main() {
    let lines = tracing_subscriber::fmt::layer().json().with_writer(io::sink);
    let switch =
        dynamic_filter_fn(|metadata, _| LOGGING.load(Ordering::Relaxed) && *metadata.level() <= tracing::Level::INFO);
    tracing_subscriber::registry().with(lines.with_filter(switch)).init();
    let directory = tempfile::tempdir().expect("a directory");
    let (cached, body) = start_cached(directory.path());
    let bare = start_bare(body);

    let mut criterion = Criterion::default().configure_from_args();
    for server in [&cached, &bare] {
        let mut client = Client::connect(server);
        criterion.bench_function(server.name, |bencher| bencher.iter(|| client.exchange()));
    }
    criterion.final_summary();
    println!();
    compare(&cached, &bare, "");
    LOGGING.store(true, Ordering::Relaxed);
    compare(&cached, &bare, ", with a log line each");
}

/// Measures both servers alternately, so that other load affects both equally, and prints the ratios of the medians:
/// above 1, the cached read is faster.
fn compare(cached: &Server, bare: &Server, how: &str) {
    const ROUNDS: usize = 21;
    const REQUESTS: u32 = 2_000;
    let (mut of_cached, mut of_bare) = (Client::connect(cached), Client::connect(bare));
    let rounds: Vec<_> =
        (0..ROUNDS).map(|_| (of_cached.measure(cached, REQUESTS), of_bare.measure(bare, REQUESTS))).collect();
    let median = |value: fn(&(Took, Took)) -> f64| {
        let mut values: Vec<_> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    };
    let micros = |total: f64| total * 1e6 / f64::from(REQUESTS);
    println!(
        "server CPU a request{how}: {} {:.1} µs, {} {:.1} µs; {:.2} of bare hyper's requests a second of CPU",
        cached.name,
        micros(median(|(cached, _)| cached.server_cpu.as_secs_f64())),
        bare.name,
        micros(median(|(_, bare)| bare.server_cpu.as_secs_f64())),
        median(|(cached, bare)| bare.server_cpu.as_secs_f64() / cached.server_cpu.as_secs_f64()),
    );
    let ratio = median(|(cached, bare)| bare.wall.as_secs_f64() / cached.wall.as_secs_f64());
    println!("cached GET / bare hyper{how}: {ratio:.2}");
}

impl Client {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).expect("a connection");
        stream.set_nodelay(true).expect("an option of every socket");
        let request = format!("GET {} HTTP/1.1\r\nHost: pm\r\nAccept: */*\r\n\r\n", server.path);
        let mut client = Self { stream, request, buffer: vec![0; 64 * 1024] };
        for _ in 0..100 {
            client.exchange();
        }
        client
    }

    /// Sends one request and reads the whole response.
    fn exchange(&mut self) {
        self.stream.write_all(self.request.as_bytes()).expect("sent");
        let mut read = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[read..]).expect("an answer");
            assert!(more > 0, "the server closed the connection");
            read += more;
            if is_whole(&self.buffer[..read]) {
                return;
            }
        }
    }

    fn measure(&mut self, server: &Server, requests: u32) -> Took {
        let (began, cpu) = (Instant::now(), server.cpu());
        for _ in 0..requests {
            self.exchange();
        }
        Took { wall: began.elapsed(), server_cpu: server.cpu() - cpu }
    }
}

/// Returns whether the response is a 200 with its complete body.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&answer[..end]).expect("text").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    answer.len() >= end + 4 + length.parse::<usize>().expect("a number")
}

impl Server {
    /// Starts `run` on its own thread and waits for its address and the path to request.
    fn start<T: Send + 'static, F: Future<Output = ()>>(
        name: &'static str,
        run: impl FnOnce(TcpListener, Box<dyn FnOnce(String, T)>) -> F + Send + 'static,
    ) -> (Self, T) {
        let (started, start) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("an address");
                let thread = fs::read_link("/proc/thread-self").expect("this runs on Linux");
                let schedstat = format!("/proc/{}/schedstat", thread.display());
                let ready = move |path, extra| {
                    started.send((Self { name, path, address, schedstat }, extra)).expect("somebody waits");
                };
                run(listener, Box::new(ready)).await;
            });
        });
        start.recv().expect("the server starts")
    }

    /// Returns the CPU time of the server's thread so far.
    fn cpu(&self) -> Duration {
        let text = fs::read_to_string(&self.schedstat).expect("this runs on Linux");
        let nanos =
            text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first field is nanoseconds");
        Duration::from_nanos(nanos)
    }
}

/// Returns the catalog behind the real server, with one cached product, and the product's body.
fn start_cached(directory: &Path) -> (Server, Bytes) {
    let directory = directory.to_owned();
    Server::start("cached GET", |listener, ready| async move {
        let state = state(&directory).await;
        let new = NewProduct::from_json(PRODUCT.as_bytes(), &AddressPolicy::default());
        let new = new.expect("JSON").expect("a valid product");
        let id = state.catalog.create(new, None).await.expect("stored").id;
        let (body, _) = state.catalog.product_body(id).await.expect("read");
        assert!(state.catalog.hot_body(id).await.is_some(), "the product is in the cache");
        ready(format!("/products/{id}"), body.json);
        serve(listener, state, Config::default(), future::pending()).await;
    })
}

async fn state(directory: &Path) -> State {
    let path = directory.join("pm.db");
    let database = Database::connect(&db::Config::Sqlite { path: path.clone() }).await.expect("a database");
    db::migrate::up(&database, None).await.expect("a schema");
    let cache = cache::Engine::Memory { max_bytes: 1 << 20, database: path, lifetimes: cache::Lifetimes::default() };
    let cache = Cache::connect(&cache).await.expect("a cache");
    let (installation, id) = tokio::sync::watch::channel(pm::domain::InstallationId::new(uuid::Uuid::nil()));
    let queue = Queue::connect(&queue::Engine::Database, &database.read(), id).await.expect("a queue");
    let blobs = blobs::Engine::Disk { directory: directory.join("blobs") };
    let blobs = Blobs::connect(&blobs).await.expect("a store");
    let engines = Engines {
        database: database.clone(),
        cache: cache.clone(),
        queue: queue.clone(),
        blobs: blobs.clone(),
        installation,
    };
    let config = catalog::Config { auto_users: true, ..catalog::Config::default() };
    let metrics = Metrics::install();
    let catalog = Catalog::new(config, engines);
    let resizer = Resizer::new(ResizeConfig::default(), catalog.clone(), blobs.clone());
    State {
        catalog,
        images: ImageDelivery { resizer, keys: None, placeholder: Placeholder::None },
        originals: Originals::default(),
        health: Health { database, cache, queue, blobs: blobs.clone() },
        blobs,
        metrics: std::sync::Arc::new(move || metrics.render()),
    }
}

fn start_bare(body: Bytes) -> Server {
    let (server, ()) = Server::start("bare hyper", |listener, ready| async move {
        ready("/".to_owned(), ());
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("an option of every socket");
            let body = body.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                future::ready(Ok::<_, Infallible>(response))
            });
            let mut protocol = hyper::server::conn::http1::Builder::new();
            protocol.timer(TokioTimer::new());
            tokio::spawn(protocol.serve_connection(TokioIo::new(stream), service));
        }
    });
    server
}
