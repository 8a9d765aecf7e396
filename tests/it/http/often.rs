//! Rate limits.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    api::wire,
    support::{Setup, TestApp, app},
};

const SETTINGS: [(&str, &str); 2] = [("PM_RATE_LIMIT", "1/h,burst=5"), ("PM_TRUSTED_PROXIES", "127.0.0.0/8")];

/// Returns how many of `count` requests of the client at `address` are allowed.
async fn answered(app: &TestApp, path: &str, address: &str, count: usize) -> usize {
    let mut answered = 0;
    for _ in 0..count {
        let answer = wire::get_with(app, path, &[("X-Forwarded-For", address)]).await;
        match answer.status {
            200 => answered += 1,
            429 => {
                assert_eq!(answer.json()["code"], "rate_limited");
                assert!(answer.header("retry-after").parse::<u64>().unwrap() > 3_000);
                assert!(answer.header("ratelimit").starts_with("\"default\";r=0;t="), "{}", answer.header("ratelimit"));
            }
            other => panic!("{other}: {}", answer.text()),
        }
        assert_eq!(answer.header("ratelimit-policy"), "\"default\";q=5;w=18000");
    }
    answered
}

async fn each_client_has_its_own_quota(app: &TestApp) {
    assert_eq!(answered(app, "/products", "192.0.2.1", 8).await, 5);
    assert_eq!(answered(app, "/products", "192.0.2.2", 8).await, 5);
    // One IPv6 client owns a whole /64 network.
    assert_eq!(answered(app, "/products", "2001:db8::1", 3).await, 3);
    assert_eq!(answered(app, "/products", "2001:db8::2", 8).await, 2);
    for path in ["/healthz", "/readyz", "/metrics"] {
        for _ in 0..10 {
            let answer = wire::get_with(app, path, &[("X-Forwarded-For", "192.0.2.1")]).await;
            assert_eq!((answer.status, answer.header("ratelimit")), (200, ""), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_has_its_own_rate_limit_embedded() {
    app::run_with(Setup::Embedded, &SETTINGS, each_client_has_its_own_quota).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_has_its_own_rate_limit_full() {
    app::run_with(Setup::Full, &SETTINGS, each_client_has_its_own_quota).await;
}

/// A proxy appends to one header and forwards the other one unchanged.
async fn a_client_does_not_choose_its_address(app: &TestApp, believed: &str, ignored: &str) {
    let value = |header: &str, address: &str| match header {
        "Forwarded" => format!("for={address}"),
        _ => address.to_owned(),
    };
    let mut answered = 0;
    for number in 0..8 {
        let headers =
            [(believed, value(believed, "192.0.2.1")), (ignored, value(ignored, &format!("198.51.100.{number}")))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        answered += usize::from(wire::get_with(app, "/products", &headers).await.status == 200);
    }
    assert_eq!(answered, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_x_forwarded_for_is_trusted_by_default() {
    app::run_with(Setup::Embedded, &SETTINGS, async |app| {
        a_client_does_not_choose_its_address(app, "X-Forwarded-For", "Forwarded").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_forwarded_is_trusted_when_configured() {
    let settings = [SETTINGS[0], SETTINGS[1], ("PM_FORWARDED_HEADER", "forwarded")];
    app::run_with(Setup::Embedded, &settings, async |app| {
        a_client_does_not_choose_its_address(app, "Forwarded", "X-Forwarded-For").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_kept_for_the_configured_time() {
    app::run_with(Setup::Embedded, &[("PM_KEEPALIVE", "3s")], async |app| {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        let mut bytes = [0; 4_096];
        let mut began = Instant::now();
        for pause in [0, 2] {
            sleep(Duration::from_secs(pause)).await;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            assert!(stream.read(&mut bytes).await.unwrap() > 0, "an answer after {pause} s");
            began = Instant::now();
        }
        let end = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.expect("it is closed");
        assert_eq!(end.unwrap(), 0, "closed, not reset");
        assert!(began.elapsed() > Duration::from_millis(2_900), "closed after {:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_one_redis_share_the_rate_limit() {
    app::run_with(Setup::Full, &SETTINGS, async |app| {
        let quota = app.app.settings.security.quota.unwrap();
        let other = app.another().await;
        for expected in [true, true, true] {
            let spent = other.health.cache.spend("address:192.0.2.9", quota).await.unwrap();
            assert_eq!(spent.allowed, expected);
        }
        assert_eq!(answered(app, "/products", "192.0.2.9", 5).await, 2);
    })
    .await;
}
