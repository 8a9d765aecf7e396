//! Redis may be down, slow, short of memory, or restarted with old data; readers notice only a miss.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pm::{
    cache::{BodyShape, Cache, Engine, Error, Lifetimes, Lookup},
    code::ErrorCode,
    domain::ProductId,
};
use redis::AsyncCommands;

use super::{
    eventually, invalidate, model::no_reader_sees_less_than_was_acknowledged, own_prefix, permit, process, put, read,
    redis_cache, value,
};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn an_invalid_redis_url_is_an_invalid_setting() {
    let engine = Engine::Redis {
        url: "http://127.0.0.1".into(),
        prefix: "pm".into(),
        notes: None,
        shape: BodyShape::of(b"one"),
        lifetimes: Lifetimes::default(),
    };
    let error = Cache::connect(&engine).await.expect_err("no address of a Redis");
    assert!(matches!(error, Error::Config(_)));
}

#[tokio::test]
async fn a_redis_that_is_unavailable_at_the_start_is_used_later() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (proxy, url) = proxied(&url).await;
    proxy.cut();
    let cache = redis_cache(&url, Lifetimes::default()).await;
    assert_eq!(cache.get(ProductId(1)).await, None);
    assert!(cache.check().await.is_err_and(|error| error.code() == ErrorCode::Unavailable));
    proxy.restore();
    put(&cache, ProductId(1), value(1)).await;
    assert_eq!(read(&cache, ProductId(1)).await, value(1));
}

#[tokio::test]
async fn a_tls_url_of_a_server_without_tls_is_unavailable_without_a_panic() {
    let Some(url) = crate::support::redis_url().await else { return };
    let cache = redis_cache(&url.replace("redis://", "rediss://"), Lifetimes::default()).await;
    assert_eq!(cache.get(ProductId(1)).await, None);
    assert!(cache.check().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_delays_only_the_first_read_by_its_time_limit() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (proxy, url) = proxied(&url).await;
    let cache = redis_cache(&url, Lifetimes::default()).await;
    put(&cache, ProductId(1), value(1)).await;
    read(&cache, ProductId(1)).await;

    proxy.stall();
    let began = Instant::now();
    assert_eq!(cache.get(ProductId(1)).await, None);
    let first = began.elapsed();
    assert!(first < Duration::from_millis(60) * busy_factor(), "{first:?}");

    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        assert_eq!(cache.get(ProductId(1)).await, None);
        assert!(matches!(cache.lookup(ProductId(1)).await, Lookup::Miss(fill) if !fill.is_permit()));
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times.sort();
    assert!(times[150] < Duration::from_millis(10), "{:?}", times[150]);

    proxy.restore();
    assert_eq!(read(&cache, ProductId(1)).await, value(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_broken_while_idle_fails_no_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(server) = Server::start(directory.path()).await else { return };
    let cache = redis_cache(&server.url(), Lifetimes::default()).await;
    let mut client = server.client().await;
    let mut close_others = redis::cmd("CLIENT");
    close_others.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
    // On a busy machine the second attempt may also be late once, but not always.
    eventually(async || {
        put(&cache, ProductId(1), value(1)).await;
        let closed: u64 = close_others.query_async(&mut client).await.expect("an answer");
        assert!(closed > 0);
        cache.invalidate(&[ProductId(1)]).await.ok()
    })
    .await;
    assert_eq!(cache.get(ProductId(1)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_invalidation_stops_reads_until_a_later_one_succeeds() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (proxy, proxied_url) = proxied(&url).await;
    let prefix = own_prefix();
    let (cache, other_process) = (process(&proxied_url, &prefix).await, process(&url, &prefix).await);
    let (changed, untouched) = (ProductId(1), ProductId(2));
    put(&cache, changed, value(1)).await;
    put(&cache, untouched, value(1)).await;

    for fault in [Proxy::cut, Proxy::stall] {
        put(&cache, changed, value(1)).await;
        fault(&proxy);
        let error = cache.invalidate(&[changed]).await.expect_err("Redis does not answer");
        assert!(error.is_transient());
        // Redis still has the old value, and this process still does not return it.
        assert_eq!(read(&other_process, changed).await, value(1));
        assert_eq!(cache.get(changed).await, None);

        proxy.restore();
        eventually(async || {
            assert_eq!(cache.get(changed).await, None, "an old value after the write was acknowledged");
            cache.get(untouched).await
        })
        .await;
        assert_eq!(other_process.get(changed).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_write_still_deletes_the_entry() {
    let Some(url) = crate::support::redis_url().await else { return };
    let cache = redis_cache(&url, Lifetimes::default()).await;
    put(&cache, ProductId(1), value(1)).await;
    tokio::select! {
        biased;
        // On a busy machine Redis may even answer before the time limit of zero.
        _ = cache.invalidate(&[ProductId(1)]) => {}
        () = std::future::ready(()) => {}
    }
    eventually(async || cache.get(ProductId(1)).await.is_none().then_some(())).await;
    assert!(permit(&cache, ProductId(1)).await.is_permit());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failed_invalidations_drop_everything() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (proxy, url) = proxied(&url).await;
    let cache = redis_cache(&url, Lifetimes::default()).await;
    put(&cache, ProductId(-1), value(1)).await;
    put(&cache, ProductId(-2), value(1)).await;
    proxy.cut();
    let ids: Vec<_> = (0..100_001).map(ProductId).collect();
    cache.invalidate(&ids).await.expect_err("Redis does not answer");
    proxy.restore();
    eventually(async || cache.check().await.ok()).await;
    assert_eq!((cache.get(ProductId(-1)).await, cache.get(ProductId(-2)).await), (None, None));
    assert!(permit(&cache, ProductId(-1)).await.is_permit());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_while_connections_break() {
    let Some(url) = crate::support::redis_url().await else { return };
    let (proxy, url) = proxied(&url).await;
    let cache = redis_cache(&url, Lifetimes::default()).await;
    no_reader_sees_less_than_was_acknowledged(&[cache], None, Some(&proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_is_stale_while_redis_evicts() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(server) = Server::start(directory.path()).await else { return };
    let prefix = own_prefix();
    let processes = [process(&server.url(), &prefix).await, process(&server.url(), &prefix).await];
    let mut client = server.client().await;
    let room = server.statistic("used_memory").await + (150 << 10);
    let limit = [("maxmemory-policy", "allkeys-random".into()), ("maxmemory", room.to_string())];
    redis::cmd("CONFIG").arg("SET").arg(&limit[..]).query_async::<()>(&mut client).await.expect("a limit");

    no_reader_sees_less_than_was_acknowledged(&processes, None, None).await;
    assert!(server.statistic("evicted_keys").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_does_not_return_old_values() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mut server) = Server::start(directory.path()).await else { return };
    let prefix = own_prefix();
    let cache = process(&server.url(), &prefix).await;
    put(&cache, ProductId(1), value(1)).await;
    let mut client = server.client().await;
    redis::cmd("SAVE").query_async::<()>(&mut client).await.expect("a snapshot with the value");
    invalidate(&cache, ProductId(1)).await;

    server.kill_and_restart(directory.path()).await;
    let mut client = server.client().await;
    let keys: Vec<String> = client.keys(format!("{prefix}:*")).await.expect("keys");
    assert_eq!(keys.len(), 1, "the snapshot brought the deleted value back: {keys:?}");

    eventually(async || {
        assert_eq!(cache.get(ProductId(1)).await, None);
        cache.check().await.ok()
    })
    .await;
    assert_eq!(cache.get(ProductId(1)).await, None);
    put(&cache, ProductId(1), value(2)).await;
    assert_eq!(read(&cache, ProductId(1)).await, value(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_redis_is_not_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(server) = Server::start(directory.path()).await else { return };
    let cache = redis_cache(&server.url(), Lifetimes::default()).await;
    put(&cache, ProductId(1), value(1)).await;
    let mut client = server.client().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).query_async::<()>(&mut client).await.expect("a demotion");
    cache.invalidate(&[ProductId(1)]).await.expect_err("a replica is read-only");
    assert_eq!(cache.get(ProductId(1)).await, None);
    let newcomer = redis_cache(&server.url(), Lifetimes::default()).await;
    assert!(newcomer.check().await.is_err());

    redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async::<()>(&mut client).await.expect("a promotion");
    eventually(async || {
        assert_eq!(cache.get(ProductId(1)).await, None);
        cache.check().await.ok()
    })
    .await;
    assert_eq!(cache.get(ProductId(1)).await, None);
}

/// Factor by which times may exceed the promise, since tests run in parallel.
fn busy_factor() -> u32 {
    5
}

async fn proxied(url: &str) -> (Proxy, String) {
    let mut url = url::Url::parse(url).expect("an address");
    let host = url.host_str().expect("a host").to_owned();
    let proxy = Proxy::start((host, url.port().unwrap_or(6379))).await;
    url.set_host(Some("127.0.0.1")).expect("a host");
    url.set_port(Some(proxy.address().port())).expect("a port");
    (proxy, url.into())
}

/// A Redis of one test, which the test may kill.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    async fn start(directory: &Path) -> Option<Self> {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
        let port = port.expect("a free port").port();
        let Ok(process) = Self::spawn(port, directory) else {
            crate::support::skip("redis-server");
            return None;
        };
        let server = Self { process, port };
        server.client().await;
        Some(server)
    }

    fn spawn(port: u16, directory: &Path) -> std::io::Result<Child> {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn client(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("an address");
        eventually(async || client.get_multiplexed_async_connection().await.ok()).await
    }

    /// Returns one of the server's statistics.
    async fn statistic(&self, name: &str) -> u64 {
        let info: redis::InfoDict = redis::cmd("INFO").query_async(&mut self.client().await).await.expect("statistics");
        info.get(name).expect("a statistic of this name")
    }

    async fn kill_and_restart(&mut self, directory: &Path) {
        self.process.kill().expect("a running server");
        self.process.wait().expect("its end");
        self.process = Self::spawn(self.port, directory).expect("a second run");
        let mut client = self.client().await;
        eventually(async || redis::cmd("DBSIZE").query_async::<u64>(&mut client).await.ok()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
