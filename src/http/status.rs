//! How the server is: `/healthz`, `/readyz`, `/metrics`; and `/`, which names the paths there are.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use warp::{Filter, filters::BoxedFilter};

use super::{
    RenderMetrics, State, extract,
    problem::Problem,
    reply::{self, Ready},
    route::Route,
};
use crate::health::{Component, Health};

/// The routes about the server; `stopping` is set once it is about to end.
pub fn routes(state: &State, stopping: &Arc<AtomicBool>) -> BoxedFilter<(warp::reply::Response,)> {
    let alive = warp::path!("healthz").and(warp::get()).then(alive);
    let ready = warp::path!("readyz")
        .and(warp::get())
        .and(extract::with(&state.health))
        .and(extract::with(stopping))
        .then(ready);
    let metrics = warp::path!("metrics").and(warp::get()).and(extract::with(&state.metrics)).then(metrics);
    let index = warp::path::end().and(warp::get()).then(index);
    extract::boxed(alive)
        .or(extract::boxed(ready))
        .unify()
        .or(extract::boxed(metrics))
        .unify()
        .or(extract::boxed(index))
        .unify()
        .boxed()
}

#[derive(Serialize)]
struct ReadinessBody {
    status: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
    components: Vec<ComponentBody>,
}

#[derive(Serialize)]
struct ComponentBody {
    name: &'static str,
    engine: &'static str,
    status: &'static str,
    required: bool,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn alive() -> Result<Ready, Problem> {
    reply::json(StatusCode::OK, &serde_json::json!({"status": "ok"})).map(fresh)
}

async fn ready(health: Health, stopping: Arc<AtomicBool>) -> Result<Ready, Problem> {
    // The check takes its time, so the flag is read after it.
    let components = health.check().await;
    let stopping = stopping.load(Ordering::Relaxed);
    let ready = !stopping && components.iter().all(|component| component.error.is_none() || !component.required);
    let body = ReadinessBody {
        status: if ready { "ready" } else { "unready" },
        stopping,
        components: components.into_iter().map(ComponentBody::from).collect(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json(status, &body).map(fresh)
}

async fn metrics(render: RenderMetrics) -> Result<Ready, Problem> {
    let mut response = Response::new(Bytes::from(render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(fresh(response))
}

async fn index() -> Result<Ready, Problem> {
    #[derive(Serialize)]
    struct Path {
        path: &'static str,
        methods: &'static str,
    }
    let paths: Vec<_> = Route::all().map(|route| Path { path: route.template(), methods: route.allow() }).collect();
    let index = serde_json::json!({"name": "pm", "version": env!("CARGO_PKG_VERSION"), "paths": paths});
    reply::json(StatusCode::OK, &index)
}

/// What is true only now must not be kept.
fn fresh(mut response: Ready) -> Ready {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl From<Component> for ComponentBody {
    fn from(component: Component) -> Self {
        Self {
            name: component.name,
            engine: component.engine,
            status: if component.error.is_none() { "up" } else { "down" },
            required: component.required,
            latency_ms: component.latency.as_micros() as f64 / 1_000.0,
            error: component.error,
        }
    }
}
