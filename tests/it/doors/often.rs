//! How often a client may come.

use crate::{
    api::wire,
    support::{Setup, TestApp, app},
};

const SETTINGS: [(&str, &str); 2] = [("PM_RATE_LIMIT", "1/h,burst=5"), ("PM_TRUSTED_PROXIES", "127.0.0.0/8")];

/// How many of `count` requests of the client at `address` are answered.
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
    // One client has a whole network of 64 bits.
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
async fn each_client_has_its_own_quota_embedded() {
    app::run_with(Setup::Embedded, &SETTINGS, each_client_has_its_own_quota).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_has_its_own_quota_full() {
    app::run_with(Setup::Full, &SETTINGS, each_client_has_its_own_quota).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_one_redis_count_together() {
    app::run_with(Setup::Full, &SETTINGS, async |app| {
        let quota = app.app.settings.doors.quota.unwrap();
        let other = app.another().await;
        for expected in [true, true, true] {
            let spent = other.health.cache.spend("address:192.0.2.9", quota).await.unwrap();
            assert_eq!(spent.allowed, expected);
        }
        assert_eq!(answered(app, "/products", "192.0.2.9", 5).await, 2);
    })
    .await;
}
