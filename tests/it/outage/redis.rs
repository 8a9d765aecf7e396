//! Redis is optional: without it everything is slower, but nothing fails and nothing is stale.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Proxies, behind_proxies, eventually, readiness};
use crate::{
    keep::{code, pm, stderr},
    support::{Origin, Setup, TestApp, app, images},
};

/// Reads a product, which must succeed; returns its body and whether it came from the cache.
async fn read(app: &TestApp, id: &Value) -> (Value, bool) {
    let response = app.get(&format!("/products/{id}")).await;
    assert_eq!(response.status(), 200);
    let hit = response.headers()["x-cache"] == "hit";
    (response.json().await.unwrap(), hit)
}

/// Reads and writes products while Redis is down, and checks that the cache recovers.
async fn goes_on_without(app: &TestApp, proxies: &Proxies, leave: impl Fn()) {
    let origin = Origin::start().await;
    origin.serve("/a.png", "image/png", images::png(64, 48));
    let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
    read(app, &id).await;
    assert!(read(app, &id).await.1, "it is cached before");
    assert_eq!(readiness(app).await, (200, vec![]));

    leave();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(read(app, &id).await.0["status"], "processing");
    }
    // Three operations of at most 50 ms until the breaker opens, half open once a second; the rest is the database's
    // time.
    assert!(began.elapsed() < Duration::from_secs(3), "20 reads took {:?}", began.elapsed());
    let created = app.create(&[]).await["id"].clone();
    assert_eq!(read(app, &created).await.0["status"], "ready");
    // Redis still has the old body, and writers cannot invalidate it.
    app.drain().await;
    for _ in 0..20 {
        let (product, hit) = read(app, &id).await;
        assert_eq!((product["status"].as_str(), hit), (Some("ready"), false));
    }
    assert_eq!(readiness(app).await, (200, vec!["cache".to_owned()]), "the server accepts requests without its cache");

    proxies.redis.restore();
    let back = eventually("an answer from the cache", async || {
        let (product, hit) = read(app, &id).await;
        assert_eq!(product["status"], "ready", "old values in Redis are never returned");
        hit.then_some(product)
    });
    assert_eq!(back.await["status"], "ready");
    assert_eq!(read(app, &created).await.0["status"], "ready");
    eventually("a cache that is up", async || readiness(app).await.1.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_fresh_while_redis_is_down() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        goes_on_without(app, proxies, || proxies.redis.cut()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_fresh_while_redis_is_silent() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        goes_on_without(app, proxies, || proxies.redis.stall()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_redis_entry_does_not_hide_another_processs_write() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let other = app.another().await;
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        read(app, &id).await;
        assert!(read(app, &id).await.1, "it is cached before");

        proxies.redis.cut();
        assert_eq!(read(app, &id).await.0["status"], "processing");
        let worker = other.worker(1).unwrap();
        eventually("the other process's job", async || (worker.drain().await.unwrap() > 0).then_some(())).await;
        assert_eq!(read(app, &id).await.0["status"], "ready");

        proxies.redis.restore();
        eventually("an answer from the cache", async || {
            let (product, hit) = read(app, &id).await;
            assert_eq!(product["status"], "ready", "from the cache: {hit}");
            hit.then_some(())
        })
        .await;
    })
    .await;
}

/// The next process that reaches Redis deletes the entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_warns_about_a_silent_cache() {
    app::run(Setup::Embedded, async |source: &TestApp| {
        source.create(&[]).await;
        let directory = source.directory().join("backup").display().to_string();
        let saved = pm(source, &["backup", &directory]).await;
        assert_eq!(code(&saved), 0, "{}", stderr(&saved));
        behind_proxies(async |app: &TestApp, proxies: &Proxies| {
            proxies.redis.stall();
            // Nor can it be disconnected, which would do as well.
            app.sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                    AS $$ BEGIN RAISE EXCEPTION 'as a server that is about to end'; END $$",
            )
            .await;
            app.sql(
                "CREATE TRIGGER refuse BEFORE UPDATE OF cache_phase ON installation
                    FOR EACH ROW WHEN (NEW.cache_phase = 1) EXECUTE FUNCTION refuse()",
            )
            .await;
            let restored = pm(app, &["restore", &directory, "--yes"]).await;
            assert_eq!(code(&restored), 0, "{}", stderr(&restored));
            let warned = stderr(&restored);
            assert!(warned.contains("warning: the cache does not answer; it is invalidated later"), "{warned}");
            proxies.redis.restore();
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_is_sent_at_once_after_the_database_clock_went_back() {
    app::run(Setup::Full, async |app: &TestApp| {
        let id = app.create(&[]).await["id"].clone();
        let written = "SELECT (extract(epoch FROM clock_timestamp() + interval '1 hour') * 1000000)::bigint";
        let insert = format!(
            "INSERT INTO cache_invalidation (product_id, created_at, cache_schema) VALUES ({id}, ({written}), 2)"
        );
        app.sql(&insert).await;
        assert!(app.app.catalog.flush_invalidations().await.unwrap());
        assert_eq!(app.number("SELECT count(*) FROM cache_invalidation").await, 0);
    })
    .await;
}
