//! Redis is optional: without it everything is a little slower, nothing fails and nothing is stale.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Proxies, behind_proxies, eventually, readiness};
use crate::{
    keep::{code, pm, stderr},
    support::{Origin, Setup, TestApp, app, pictures},
};

/// A read that is not allowed to fail: its body and whether it came from the cache.
async fn read(app: &TestApp, id: &Value) -> (Value, bool) {
    let response = app.get(&format!("/products/{id}")).await;
    assert_eq!(response.status(), 200);
    let hit = response.headers()["x-cache"] == "hit";
    (response.json().await.unwrap(), hit)
}

/// Products are read and written while Redis is away, and all is as it was once it is back.
async fn goes_on_without(app: &TestApp, proxies: &Proxies, leave: impl Fn()) {
    let origin = Origin::start().await;
    origin.serve("/a.png", "image/png", pictures::png(64, 48));
    let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
    read(app, &id).await;
    assert!(read(app, &id).await.1, "it is cached before");
    assert_eq!(readiness(app).await, (200, vec![]));

    leave();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(read(app, &id).await.0["status"], "processing");
    }
    // Three operations of 50 ms at most until the breaker opens, half open once a second; the rest is the database's.
    assert!(began.elapsed() < Duration::from_secs(3), "20 reads took {:?}", began.elapsed());
    let created = app.create(&[]).await["id"].clone();
    assert_eq!(read(app, &created).await.0["status"], "ready");
    // Redis has the old body still; whoever writes now cannot tell it.
    app.drain().await;
    for _ in 0..20 {
        let (product, hit) = read(app, &id).await;
        assert_eq!((product["status"].as_str(), hit), (Some("ready"), false));
    }
    assert_eq!(readiness(app).await, (200, vec!["cache".to_owned()]), "the server takes requests without its cache");

    proxies.redis.restore();
    let back = eventually("an answer from the cache", async || {
        let (product, hit) = read(app, &id).await;
        assert_eq!(product["status"], "ready", "what Redis kept from before is never shown");
        hit.then_some(product)
    });
    assert_eq!(back.await["status"], "ready");
    assert_eq!(read(app, &created).await.0["status"], "ready");
    eventually("a cache that is up", async || readiness(app).await.1.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_break_off() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        goes_on_without(app, proxies, || proxies.redis.cut()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_fall_silent() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        goes_on_without(app, proxies, || proxies.redis.stall()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_wrote_meanwhile_is_not_hidden_by_what_redis_kept() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", pictures::png(64, 48));
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

/// Its entries are deleted by the next process that reaches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_warns_of_a_cache_that_is_silent() {
    app::run(Setup::Embedded, async |source: &TestApp| {
        source.create(&[]).await;
        let directory = source.directory().join("backup").display().to_string();
        let saved = pm(source, &["backup", &directory]).await;
        assert_eq!(code(&saved), 0, "{}", stderr(&saved));
        behind_proxies(async |app: &TestApp, proxies: &Proxies| {
            proxies.redis.stall();
            // Nor can it be closed, which would do as well.
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
async fn a_change_from_before_the_databases_clock_went_back_is_told_at_once() {
    app::run(Setup::Full, async |app: &TestApp| {
        let id = app.create(&[]).await["id"].clone();
        let written = "SELECT (extract(epoch FROM clock_timestamp() + interval '1 hour') * 1000000)::bigint";
        let insert = format!(
            "INSERT INTO cache_invalidation (product_id, created_at, cache_schema) VALUES ({id}, ({written}), 2)"
        );
        app.sql(&insert).await;
        assert!(app.app.catalog.keep_cache_told().await.unwrap());
        assert_eq!(app.number("SELECT count(*) FROM cache_invalidation").await, 0);
    })
    .await;
}
