//! Tests of the log lines and metrics of requests.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;

use super::{PRODUCT, Server};
use crate::http::Config;

/// Collects log lines; the server runs on the test's thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG);
        tracing::subscriber::set_default(subscriber.with_writer(move || lines.clone()).finish())
    }

    /// Waits for and returns the log lines with this request id.
    ///
    /// The server logs a response after the client has received it.
    async fn about(&self, request_id: &str) -> Vec<Value> {
        let mut found = self.written_about(request_id);
        for _ in 0..500 {
            if !found.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            found = self.written_about(request_id);
        }
        found
    }

    fn written_about(&self, request_id: &str) -> Vec<Value> {
        let bytes = self.0.lock().expect("not poisoned").clone();
        let lines = String::from_utf8(bytes).expect("text");
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|line| line["target"] == "pm::http" && line["fields"]["request_id"] == request_id).collect()
    }
}

#[tokio::test]
async fn each_request_logs_one_line_with_its_path_template() {
    let lines = Lines::default();
    let _guard = lines.collect();
    let server = Server::with(Config::default()).await;
    let place = server.post("/products", PRODUCT).await.header("location").to_owned();
    for (id, path, route, status, level) in [
        ("miss", place.as_str(), "/products/{id}", 200, "INFO"),
        ("hit", place.as_str(), "/products/{id}", 200, "INFO"),
        ("lost", "/secret/path", "unmatched", 404, "INFO"),
        ("alive", "/healthz", "/healthz", 200, "DEBUG"),
    ] {
        server.send(&format!("GET {path} HTTP/1.1\nX-Request-Id: {id}"), b"").await;
        let about = lines.about(id).await;
        assert_eq!(about.len(), 1, "{about:?}");
        let fields = &about[0]["fields"];
        assert_eq!((&about[0]["level"], &fields["method"]), (&level.into(), &"GET".into()));
        assert_eq!((&fields["route"], &fields["status"]), (&route.into(), &status.into()));
        assert!(fields["duration_ms"].is_number());
    }
}

#[tokio::test]
async fn an_internal_error_is_logged_once_with_its_cause() {
    let lines = Lines::default();
    let _guard = lines.collect();
    let server = Server::over(Config::default(), Arc::new(|| panic!("no metrics today"))).await;
    server.send("GET /metrics HTTP/1.1\nX-Request-Id: broken", b"").await.problem(500, "internal");
    let about = lines.about("broken").await;
    assert_eq!(about.len(), 1, "{about:?}");
    assert_eq!(about[0]["level"], "ERROR");
    assert_eq!(about[0]["fields"]["cause"], "panicked: no metrics today");
}

#[tokio::test]
async fn metric_labels_are_bounded_for_any_request() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::start().await;
    let place = server.post("/products", PRODUCT).await.header("location").to_owned();
    for request in ["GET /made/up/1", "BREW /made/up/2", "GET /products/999"] {
        server.send(&format!("{request} HTTP/1.1"), b"").await;
    }
    server.get(&place).await;
    server.get(&place).await;
    let rendered = handle.render();
    for line in [
        r#"pm_http_requests_total{method="POST",route="/products",status="201"} 1"#,
        r#"pm_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"pm_http_requests_total{method="OTHER",route="unmatched",status="404"} 1"#,
        r#"pm_http_requests_total{method="GET",route="/products/{id}",status="404"} 1"#,
        r#"pm_http_requests_total{method="GET",route="/products/{id}",status="200"} 2"#,
        "pm_http_in_flight 0",
    ] {
        assert!(rendered.contains(line), "{line} is not in\n{rendered}");
    }
    assert!(
        rendered.contains(r#"pm_http_request_duration_seconds_count{method="GET",route="/products/{id}"} 3"#),
        "{rendered}"
    );
    assert!(!rendered.contains("made"), "{rendered}");
}
