//! Cached products: as fresh as from the database, and read from the database once.

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use pm::{
    app::App,
    catalog::{Selection, Which},
    domain::{NewProduct, ProductDraft},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{create, wire};
use crate::{
    outage::{Proxies, behind_proxies},
    support::{Origin, Setup, TestApp, app, images, on_both_setups},
};

/// Creates a product through another process.
async fn created_by(other: &App, name: &str) -> i64 {
    let draft = ProductDraft {
        user_id: Some("somebody".into()),
        product_name: Some(name.into()),
        product_price: Some("1".into()),
        ..ProductDraft::default()
    };
    let new = NewProduct::parse(draft, other.catalog.policy()).unwrap();
    other.catalog.create(new, None).await.unwrap().id.0
}

/// Reads the product until it comes from the cache; an earlier read may still be filling it.
async fn hot(app: &TestApp, path: &str) -> wire::Answer {
    for _ in 0..100 {
        let answer = wire::get(app, path).await;
        if answer.header("x-cache") == "hit" {
            return answer;
        }
    }
    panic!("{path} is never a cache hit");
}

on_both_setups! {
    async fn the_second_read_comes_from_the_cache(app: &TestApp) {
        let id = create(app, "u", "n", "1").await;
        let path = format!("/products/{id}");
        let (first, second) = (wire::get(app, &path).await, wire::get(app, &path).await);
        assert_eq!((first.header("x-cache"), second.header("x-cache")), ("miss", "hit"));
        assert_eq!(first.body, second.body);
        assert_eq!(first.header("etag"), second.header("etag"));
    }

    async fn a_client_with_the_current_product_gets_304(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        let path = format!("/products/{id}");
        let before = wire::get(app, &path).await.header("etag").to_owned();
        assert!(before.starts_with('"') && before.len() > 2, "{before} is a strong tag");
        for tags in [before.clone(), format!("W/{before}"), format!("\"other\", {before}"), "*".into()] {
            let answer = wire::get_with(app, &path, &[("If-None-Match", &tags)]).await;
            assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, before.as_str()), "{tags}");
        }
        app.drain().await;
        let after = wire::get_with(app, &path, &[("If-None-Match", &before)]).await;
        assert_eq!(after.status, 200, "the product has changed");
        assert_ne!(after.header("etag"), before);
        assert_eq!(after.json()["status"], "ready");
    }

    async fn a_commit_of_another_process_is_visible_at_once(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        let other = app.another().await;
        for round in 0..5 {
            let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
            let path = format!("/products/{id}");
            assert_eq!(hot(app, &path).await.json()["status"], "processing");
            let worker = other.worker(1).unwrap();
            while worker.drain().await.unwrap() == 0 {
                // This process's relay may hold the row for a moment.
                tokio::task::yield_now().await;
            }
            assert_eq!(wire::get(app, &path).await.json()["status"], "ready", "round {round}");
        }
    }

    async fn a_cached_absence_ends_when_the_product_is_created(app: &TestApp) {
        let other = app.another().await;
        for number in 1..=5 {
            let path = format!("/products/{number}");
            // The second response may come from the cache, which also caches absences.
            for _ in 0..2 {
                assert_eq!(wire::get(app, &path).await.status, 404);
            }
            assert_eq!(created_by(&other, "from elsewhere").await, number);
            let answer = wire::get(app, &path).await;
            assert_eq!((answer.status, answer.json()["product_name"].as_str()), (200, Some("from elsewhere")));
        }
    }

    async fn no_read_is_older_than_an_acknowledged_write(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(16, 16));
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        app.drain().await;
        let path = format!("/products/{id}");
        let acknowledged = std::sync::atomic::AtomicI64::new(0);
        let writing = std::sync::atomic::AtomicBool::new(true);
        let version = |product: &Value| product["version"].as_i64().unwrap();
        let read = async || {
            let mut reads = 0;
            while writing.load(std::sync::atomic::Ordering::SeqCst) {
                let least = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
                let seen = version(&app.get_json(&path).await);
                assert!(seen >= least, "version {seen} was read after {least} had been acknowledged");
                reads += 1;
            }
            reads
        };
        let write = async {
            let other = app.another().await;
            let again = Selection { status: Which::Ready, ..Selection::default() };
            for round in 0..20 {
                let catalog = if round % 2 == 0 { &other.catalog } else { &app.app.catalog };
                assert_eq!(catalog.reprocess(&again, None, 10, None).await.unwrap().images.len(), 1);
                let product = catalog.product(pm::domain::ProductId(id.as_i64().unwrap())).await.unwrap();
                acknowledged.store(product.version, std::sync::atomic::Ordering::SeqCst);
                app.drain().await;
            }
            writing.store(false, std::sync::atomic::Ordering::SeqCst);
        };
        let (reads, ()) = tokio::join!(futures_util::future::join_all((0..8).map(|_| read())), write);
        assert!(reads.iter().all(|reads| *reads > 0), "{reads:?}");
        let last = app.product(&id).await;
        assert!(version(&last) >= 40, "{last}");
    }
}

/// Records the metrics of one test. On a single-threaded runtime the thread's recorder receives all of them.
struct Metrics(PrometheusRecorder);

impl Metrics {
    fn new() -> Self {
        Self(PrometheusBuilder::new().build_recorder())
    }

    /// Returns the sum of all counters whose lines start with `prefix`.
    fn count(&self, prefix: &str) -> u64 {
        let text = self.0.handle().render();
        let values = text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    fn database_reads(&self) -> u64 {
        self.count("pm_product_reads_total")
    }

    /// Lookups that Redis did not answer in time; such a reader asks the database.
    fn failed_lookups(&self) -> u64 {
        let text = self.0.handle().render();
        let failed =
            text.lines().filter(|line| line.starts_with("pm_cache_requests_total") && line.contains("\"error\""));
        failed.filter_map(|line| line.rsplit(' ').next()).map(|value| value.parse::<u64>().unwrap()).sum()
    }
}

#[tokio::test]
async fn five_hundred_reads_of_a_cold_product_query_the_database_once() {
    let metrics = Metrics::new();
    let _recording = metrics::set_default_local_recorder(&metrics.0);
    app::run(Setup::Embedded, async |app: &TestApp| {
        let cold = create(app, "u", "cold", "1").await;
        let before = metrics.database_reads();
        let path = format!("/products/{cold}");
        let answers = futures_util::future::join_all((0..500).map(|_| app.get(&path))).await;
        assert!(answers.iter().all(|answer| answer.status() == 200));
        assert_eq!(metrics.database_reads() - before, 1);

        let other = create(app, "u", "another", "1").await;
        app.product(&json!(other)).await;
        assert_eq!(metrics.database_reads() - before, 2, "a second read is counted");
    })
    .await;
}

#[tokio::test]
async fn five_hundred_reads_share_one_query_of_a_slow_database() {
    let metrics = Metrics::new();
    let _recording = metrics::set_default_local_recorder(&metrics.0);
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        for _ in 0..5 {
            let path = format!("/products/{}", create(app, "u", "cold", "1").await);
            let (before, failed) = (metrics.database_reads(), metrics.failed_lookups());
            proxies.database.stall();
            let began = Instant::now();
            let mut readers = JoinSet::new();
            for _ in 0..20 {
                // In small groups, since Redis has 50 ms to answer.
                let asked = metrics.count("pm_cache_requests_total");
                for _ in 0..25 {
                    let request = app.client.get(app.url(&path)).send();
                    readers.spawn(async move { request.await.unwrap().status() });
                }
                while metrics.count("pm_cache_requests_total") < asked + 25 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            assert_eq!(readers.len(), 500);
            assert!(readers.try_join_next().is_none(), "no response comes before the database's");
            let waited = began.elapsed();
            proxies.database.restore();
            assert!(readers.join_all().await.iter().all(|status| *status == 200));
            // A read may fill the cache only within 3 s of its start. A slower attempt is repeated.
            if waited < Duration::from_secs(2) && metrics.failed_lookups() == failed {
                assert_eq!(metrics.database_reads() - before, 1);
                return;
            }
        }
        panic!("500 requests were never in flight within 2 s");
    })
    .await;
}
