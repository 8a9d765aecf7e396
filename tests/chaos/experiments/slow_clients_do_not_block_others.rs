//! P14: slow clients do not block other clients. Thousands of connections send half a head, half a body or nothing, to
//! a server with 1,024 file descriptors; other clients notice nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    api::Api,
    measurements::{Times, counts, milliseconds},
    soundness::Counts,
    stage::Stage,
    wrapped,
};

const HALF_A_HEAD: &[u8] = b"GET /products HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
const HALF_A_BODY: &[u8] =
    b"POST /products HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"user";
/// The kinds, and the latest time at which the server closes each, unless it waits for a connection slot.
const KINDS: [(&str, &[u8], Duration); 3] = [
    ("half_heads", HALF_A_HEAD, Duration::from_secs(6)),
    ("half_bodies", HALF_A_BODY, Duration::from_secs(30)),
    ("idle", b"", Duration::from_secs(6)),
];
const OPEN_FILES: u64 = 1_024;
const MAX_P99: Duration = Duration::from_millis(100);
/// Beside other experiments even a server without slow clients is slower; a starved one fails altogether.
const MAX_P99_BESIDE_OTHERS: Duration = Duration::from_secs(3);

/// Results of one kind.
#[derive(Clone, Debug, Default)]
struct KindResult {
    connected: usize,
    closed: Times,
    open: usize,
}

pub async fn run(stage: &Stage) -> anyhow::Result<Counts> {
    let of_each = stage.size(300, 2_000).min(max_of_each());
    // A body may take 25 s; the short form does not wait that long.
    let watched = stage.size(Duration::from_secs(7), Duration::from_secs(31));
    let limited = format!("ulimit -n {OPEN_FILES} && exec \"$@\"");
    let mut server = wrapped::serve(stage, "limited", &["sh", "-c", &limited, "sh"], &["--no-worker"]).await?;
    let api = server.api();
    let id = api.create("read meanwhile", &[]).await?["id"].as_i64().context("a number")?;
    let before = good(&api, id, Duration::from_secs(1)).await?;
    // At full size most of them wait for a connection slot: the client's clock starts before, the server's after.
    let turns = stage.size(1, 2);
    let kinds = KINDS.map(|(name, begin, limit)| (name, begin, limit * turns));
    let slow = join_all(kinds.map(|(_, begin, limit)| kind(server.address, begin, of_each, (limit, watched))));
    let (result, during) = tokio::join!(slow, good(&api, id, watched));
    let during = during?;
    anyhow::ensure!(server.process.is_running(), "the server has ended");
    let mut counts = counts(json!({
        "of_each": of_each, "open_files": OPEN_FILES, "good_requests": during.len(), "good_failed": 0,
        "good_p99_ms": milliseconds(during.quantile(0.99)), "good_slowest_ms": milliseconds(during.longest()),
        "good_p99_before_ms": milliseconds(before.quantile(0.99)),
    }));
    for ((name, _, limit), result) in kinds.iter().zip(result) {
        anyhow::ensure!(result.connected == of_each, "only {} of {of_each} {name} got a connection", result.connected);
        anyhow::ensure!(*limit > watched || result.open == 0, "{} {name} are open after {limit:?}", result.open);
        counts.insert(format!("{name}_closed_within_ms"), milliseconds(result.closed.longest()));
        counts.insert(format!("{name}_open_at_the_end"), json!(result.open));
    }
    let p99 = during.quantile(0.99);
    let limit = stage.size(MAX_P99_BESIDE_OTHERS, MAX_P99);
    anyhow::ensure!(p99 < limit, "good requests had a p99 of {p99:?}: {counts:?}");
    server.process.kill().await;
    Ok(counts)
}

/// Raises this process's limit of descriptors; returns the possible number of connections of each kind.
fn max_of_each() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    let most = current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    most.saturating_sub(500) / KINDS.len()
}

/// Opens `of_each` connections that send `begin` and then one byte per second, until they are closed.
async fn kind(address: SocketAddr, begin: &[u8], of_each: usize, (limit, watched): (Duration, Duration)) -> KindResult {
    let opened = join_all((0..of_each).map(|number| async move {
        // They open over a second, as fast as an attacker could.
        sleep(Duration::from_secs(1) * u32::try_from(number).unwrap_or(0) / u32::try_from(of_each).unwrap_or(1)).await;
        let mut stream = TcpStream::connect(address).await.ok()?;
        let began = Instant::now();
        stream.write_all(begin).await.ok()?;
        let left = limit.min(watched.saturating_sub(Duration::from_millis(500)));
        Some(timeout(left, drip_until_closed(&mut stream, !begin.is_empty())).await.ok().map(|()| began.elapsed()))
    }));
    let mut result = KindResult::default();
    for stream in opened.await {
        match stream {
            None => {}
            Some(None) => (result.connected, result.open) = (result.connected + 1, result.open + 1),
            Some(Some(time)) => {
                result.connected += 1;
                result.closed.note(time);
            }
        }
    }
    result
}

async fn drip_until_closed(stream: &mut TcpStream, drips: bool) {
    let (mut reads, mut writes) = stream.split();
    let mut answer = [0; 1_024];
    let closed = async { while reads.read(&mut answer).await.is_ok_and(|read| read > 0) {} };
    let drip = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            if drips && writes.write_all(b"x").await.is_err() {
                // The reader notices the close as well.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = closed => {}
        () = drip => {}
    }
}

/// Sends requests of well-behaved clients, one every 20 ms, every fourth over a new connection.
async fn good(api: &Api, id: i64, length: Duration) -> anyhow::Result<Times> {
    const PACE: Duration = Duration::from_millis(20);
    let fresh = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
    let number = (length.as_millis() / PACE.as_millis()) as u32;
    let requests = (0..number).map(|number| {
        let client = if number % 4 == 0 { &fresh } else { api.client() };
        async move {
            sleep(PACE * number).await;
            let began = Instant::now();
            let response = client.get(api.url(&format!("/products/{id}"))).send().await.context("a good request")?;
            anyhow::ensure!(response.status() == 200, "a good request is answered {}", response.status());
            response.bytes().await?;
            anyhow::Ok(began.elapsed())
        }
    });
    let mut times = Times::default();
    for time in join_all(requests).await {
        times.note(time?);
    }
    Ok(times)
}
