//! A log line and metrics for every request.
//!
//! Metric labels are closed lists, so that clients cannot create new time series. The log contains the path template,
//! never client input.

use std::{net::IpAddr, time::Instant};

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, Unit};
use tracing::{debug, error, info, warn};

use crate::http::{
    endpoint::{Kind, Route},
    headers::request_id::RequestId,
    problem::Problem,
    request::method::RequestMethod,
    table::TABLE,
};

const REQUESTS: &str = "pm_http_requests_total";
const DURATION: &str = "pm_http_request_duration_seconds";
const IN_FLIGHT: &str = "pm_http_in_flight";
const CONNECTIONS: &str = "pm_http_connections";

/// The metrics of a server. Create it after the metrics recorder is installed, or the metrics are lost.
pub struct Observer {
    in_flight: Gauge,
    connections: Gauge,
    // Handles for the most frequent request, so that it needs no lookup by name.
    product: Counter,
    product_unchanged: Counter,
    product_duration: Histogram,
    product_route: Option<Route>,
}

/// A request in progress. If dropped before [`finish`](Self::finish), it counts as aborted by the client.
pub struct Exchange<'a> {
    observer: &'a Observer,
    method: RequestMethod,
    route: Option<Route>,
    request_id: RequestId,
    client: IpAddr,
    started: Instant,
    status: u16,
}

/// A connection that is counted until it is dropped.
pub struct Connection(Gauge);

/// The route whose metrics are registered at the start, since it is the most frequent.
const PRODUCT: &str = "/products/{id}";
/// The status of a request whose client disconnected; never sent.
const CLIENT_WENT_AWAY: u16 = 499;

impl Observer {
    /// Registers the metrics.
    pub fn new() -> Self {
        metrics::describe_counter!(REQUESTS, Unit::Count, "Requests by method, route and status");
        metrics::describe_histogram!(DURATION, Unit::Seconds, "Time from the request's head to the response's head");
        metrics::describe_gauge!(IN_FLIGHT, Unit::Count, "Requests in flight");
        metrics::describe_gauge!(CONNECTIONS, Unit::Count, "Open client connections");
        let product_route = TABLE.find(PRODUCT);
        let (get, product) = (RequestMethod::Get.as_str(), PRODUCT);
        Self {
            in_flight: metrics::gauge!(IN_FLIGHT),
            connections: metrics::gauge!(CONNECTIONS),
            product: metrics::counter!(REQUESTS, "method" => get, "route" => product, "status" => "200"),
            product_unchanged: metrics::counter!(REQUESTS, "method" => get, "route" => product, "status" => "304"),
            product_duration: metrics::histogram!(DURATION, "method" => get, "route" => product),
            product_route,
        }
    }

    /// Counts a connection until the returned guard is dropped.
    pub fn connection(&self) -> Connection {
        self.connections.increment(1.0);
        Connection(self.connections.clone())
    }

    /// Starts to measure a request.
    pub fn begin(
        &self,
        method: RequestMethod,
        route: Option<Route>,
        request_id: RequestId,
        client: IpAddr,
    ) -> Exchange<'_> {
        self.in_flight.increment(1.0);
        let started = Instant::now();
        Exchange { observer: self, method, route, request_id, client, started, status: CLIENT_WENT_AWAY }
    }

    fn count(&self, method: RequestMethod, route: Option<Route>, status: u16, seconds: f64) {
        match (method, status) {
            (RequestMethod::Get, 200) if route == self.product_route => {
                self.product.increment(1);
                self.product_duration.record(seconds);
            }
            (RequestMethod::Get, 304) if route == self.product_route => {
                self.product_unchanged.increment(1);
                self.product_duration.record(seconds);
            }
            _ => {
                let (method, route) = (method.as_str(), template(route));
                metrics::counter!(REQUESTS, "method" => method, "route" => route, "status" => label(status))
                    .increment(1);
                metrics::histogram!(DURATION, "method" => method, "route" => route).record(seconds);
            }
        }
    }
}

impl Exchange<'_> {
    /// Returns the request id.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// Records and logs the response, with the problem's causes.
    pub fn finish(mut self, status: StatusCode, problem: Option<&Problem>) {
        self.status = status.as_u16();
        let duration_ms = self.duration_ms();
        let (method, route, status, request_id, client) =
            (self.method.as_str(), template(self.route), self.status, &self.request_id, self.client);
        // The level must be known at compile time, hence one call per level.
        macro_rules! log {
            ($macro:ident $(, $field:ident)?) => {
                $macro!(
                    target: "pm::http",
                    method, route, status, duration_ms, %client, %request_id, $($field,)?
                    "{method} {route} returned {status}"
                )
            };
        }
        let about_the_server = self.route.is_some_and(|route| route.is(Kind::Status));
        match problem.map(Problem::chain).filter(|chain| !chain.is_empty()) {
            Some(cause) if problem.is_some_and(Problem::is_overload) => log!(warn, cause),
            Some(cause) => log!(error, cause),
            None if status >= 500 && about_the_server => log!(warn),
            // A problem without a cause is a refusal by design, such as that of an image that is not processed yet.
            None if status >= 500 && problem.is_none() => log!(error),
            None if about_the_server => log!(debug),
            None => log!(info),
        }
    }

    fn duration_ms(&self) -> f64 {
        self.started.elapsed().as_micros() as f64 / 1_000.0
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.observer.in_flight.decrement(1.0);
        self.observer.count(self.method, self.route, self.status, self.started.elapsed().as_secs_f64());
        if self.status == CLIENT_WENT_AWAY {
            let (method, route, duration_ms) = (self.method.as_str(), template(self.route), self.duration_ms());
            let (status, request_id) = (self.status, &self.request_id);
            info!(
                target: "pm::http", method, route, status, duration_ms, %request_id,
                "the client disconnected before the response to {method} {route}"
            );
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

fn template(route: Option<Route>) -> &'static str {
    route.map_or(Route::UNMATCHED, Route::template)
}

fn label(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        204 => "204",
        206 => "206",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        413 => "413",
        415 => "415",
        416 => "416",
        422 => "422",
        429 => "429",
        CLIENT_WENT_AWAY => "499",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::header;
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::{
        Layer,
        layer::{Context, SubscriberExt as _},
    };

    use super::*;
    use crate::code::ErrorCode;

    /// Collects the level of each event.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().expect("not poisoned").push(*event.metadata().level());
        }
    }

    #[test]
    fn a_refusal_by_design_is_no_error_in_the_log() {
        let levels = Levels::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(levels.clone()));
        let unready = Problem::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::NotReadyYet, "not processed yet")
            .with_header(header::RETRY_AFTER, http::HeaderValue::from_static("2"));
        for (problem, level) in [
            (unready, Level::INFO),
            (Problem::not_found("product 7 not found"), Level::INFO),
            (Problem::overloaded("all 10 event streams of this server are in use"), Level::WARN),
            (Problem::unavailable(ErrorCode::StorageUnavailable, "S3 does not answer"), Level::ERROR),
            (Problem::internal("a bug"), Level::ERROR),
        ] {
            let observer = Observer::new();
            let address = [127, 0, 0, 1].into();
            let exchange = observer.begin(RequestMethod::Get, TABLE.find("/products"), RequestId::make(), address);
            exchange.finish(problem.head().status(), Some(&problem));
            assert_eq!(levels.0.lock().expect("not poisoned").pop(), Some(level), "{problem:?}");
        }
    }
}
