//! Health, readiness, metrics and the index page.

use std::time::Duration;

use serde_json::json;

use super::{matches_snapshot, problem, shape, wire};
use crate::support::{Origin, Setup, TestApp, images, on_both_setups};

/// Returns the metrics once they contain `wanted`; some are measured only periodically.
async fn metrics(app: &TestApp, wanted: &str) -> String {
    for _ in 0..500 {
        let answer = wire::get(app, "/metrics").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        if answer.text().contains(wanted) {
            return answer.text();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{wanted} is missing in {}", wire::get(app, "/metrics").await.text());
}

on_both_setups! {
    async fn the_server_is_alive(app: &TestApp) {
        let answer = wire::get(app, "/healthz").await;
        matches_snapshot("alive", &shape(&answer, &["content-type", "cache-control"]));
    }

    async fn every_component_is_ready(app: &TestApp) {
        let answer = wire::get(app, "/readyz").await;
        let name = if app.setup == Setup::Embedded { "ready_embedded" } else { "ready_full" };
        matches_snapshot(name, &shape(&answer, &["content-type", "cache-control"]));
        for component in answer.json()["components"].as_array().unwrap() {
            assert!(component["latency_ms"].as_f64().is_some_and(|ms| (0.0..2_000.0).contains(&ms)), "{component}");
        }
    }

    async fn the_root_page_links_to_the_others(app: &TestApp) {
        let index = app.get_json("/").await;
        let paths: Vec<_> = index["paths"].as_array().unwrap().iter().map(|path| &path["path"]).collect();
        for path in ["/products", "/products/{id}", "/users", "/images/{key}", "/healthz", "/readyz", "/metrics"] {
            assert!(paths.contains(&&json!(path)), "{path} is not in {index}");
        }
    }

    async fn metrics_count_requests_jobs_and_images(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/photo.jpg", "image/jpeg", images::jpeg(300, 200));
        let product = app.create(&[origin.url("/photo.jpg"), origin.url("/status/404")]).await;
        app.drain().await;
        app.product(&product["id"]).await;
        app.product(&product["id"]).await;
        wire::get(app, "/nothing/of/this/name").await;
        app.app.catalog.measure_queue().await.unwrap();
        let metrics = metrics(app, "pm_queue_jobs{").await;
        for family in [
            r#"pm_http_requests_total{method="POST",route="/products",status="201"}"#,
            r#"pm_http_requests_total{method="GET",route="/products/{id}",status="200"}"#,
            r#"pm_http_requests_total{method="GET",route="unmatched",status="404"}"#,
            r#"pm_http_request_duration_seconds_bucket{method="POST",route="/products",le=""#,
            "pm_http_in_flight ",
            "pm_http_connections ",
            r#"pm_jobs_total{outcome="ready"}"#,
            r#"pm_jobs_total{outcome="failed"}"#,
            r#"pm_job_duration_seconds_bucket{outcome="ready",le=""#,
            "pm_job_step_seconds_bucket{step=",
            r#"pm_queue_jobs{state="queued"}"#,
            r#"pm_queue_jobs{state="dead"}"#,
            "pm_queue_oldest_job_age_seconds ",
            "pm_cache_requests_total{engine=",
            "pm_cache_fills_total{engine=",
            "pm_products_created_total ",
            "pm_product_reads_total ",
            "pm_image_bytes_in_total ",
            "pm_image_bytes_out_total ",
        ] {
            assert!(metrics.lines().any(|line| line.starts_with(family)), "{family} is missing in {metrics}");
        }
        assert!(!metrics.contains("/nothing/of"), "client input never becomes a label");
        for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            assert!(value.is_some_and(f64::is_finite), "{line} has no value");
        }
    }

    async fn every_response_has_the_request_id(app: &TestApp) {
        for path in ["/products", "/healthz", "/metrics", "/", "/nothing"] {
            let given = wire::get_with(app, path, &[("X-Request-Id", "client-7/abc")]).await;
            assert_eq!(given.header("x-request-id"), "client-7/abc", "{path}");
        }
        let answer = wire::get_with(app, "/nothing", &[("X-Request-Id", "client-8")]).await;
        assert_eq!(problem(&answer, 404, "not_found", "a request with an id")["request_id"], "client-8");
        let made: Vec<_> = [wire::get(app, "/healthz").await, wire::get(app, "/nothing").await]
            .iter()
            .map(|answer| uuid::Uuid::parse_str(answer.header("x-request-id")).expect("a generated id is a UUID"))
            .collect();
        assert_ne!(made[0], made[1]);
        let long = "x".repeat(129);
        for unfit in ["two words", "tab\there", "ümlaut", &long] {
            let answer = wire::get_with(app, "/healthz", &[("X-Request-Id", unfit)]).await;
            assert!(uuid::Uuid::parse_str(answer.header("x-request-id")).is_ok(), "{unfit} was accepted");
        }
    }
}
