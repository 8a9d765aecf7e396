//! Health (`/healthz`, `/readyz`), `/metrics`, `/version`, and the index of paths (`/`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;

use crate::{
    catalog::Catalog,
    domain::{InstallationId, Scope},
    health::{Component, Health},
    http::{
        RenderMetrics,
        endpoint::{Endpoint, Kind, Permission, catalog, plain_handler},
        problem::Problem,
        reply::{self, Ready},
        request::extract,
    },
    imaging::JPEG_BACKEND,
};

/// Returns the endpoints about the server.
pub fn endpoints() -> Vec<Endpoint> {
    const NOTHING: Permission = Permission::Nothing;
    vec![
        Endpoint::new::<__path_alive>(NOTHING, |_| plain_handler(warp::any().then(alive))).of_kind(Kind::Status),
        Endpoint::new::<__path_ready>(NOTHING, |services| {
            let health = extract::with(&services.state.health);
            plain_handler(health.and(extract::with(services.stopping)).then(ready))
        })
        .of_kind(Kind::Status),
        Endpoint::new::<__path_metrics>(Permission::Scope(Scope::Admin), |services| {
            plain_handler(extract::with(&services.state.metrics).then(metrics))
        })
        .of_kind(Kind::Status),
        Endpoint::new::<__path_version>(NOTHING, |services| plain_handler(catalog(services).then(version))),
        Endpoint::new::<__path_index>(NOTHING, |services| plain_handler(extract::with(&services.paths).then(index))),
    ]
}

/// The server's readiness and its components.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub struct ReadinessBody {
    /// `ready` or `unready`.
    status: &'static str,
    /// Whether the server is shutting down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    stopping: bool,
    components: Vec<ComponentBody>,
}

/// A component's health.
#[derive(Serialize, ToSchema)]
#[schema(as = Component)]
struct ComponentBody {
    /// `database`, `cache`, `queue` or `storage`.
    name: &'static str,
    /// The engine, such as `postgres`.
    engine: &'static str,
    /// `up` or `down`.
    status: &'static str,
    /// Whether the server is unready without this component.
    required: bool,
    /// Duration of the health check in milliseconds.
    latency_ms: f64,
    /// The reason if the component is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// The process's liveness.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Alive)]
pub struct AliveBody {
    /// `ok`.
    status: &'static str,
}

/// Checks whether the process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "server", operation_id = "getHealth",
    responses((status = 200, description = "The process is alive", body = AliveBody)),
)]
pub async fn alive() -> Result<Ready, Problem> {
    reply::json(StatusCode::OK, &AliveBody { status: "ok" }).map(fresh)
}

/// Checks whether the server is ready.
///
/// The body has the health of each component.
#[utoipa::path(
    get, path = "/readyz", tag = "server", operation_id = "getReadiness",
    responses(
        (status = 200, description = "The server is ready", body = ReadinessBody),
        (status = 503, description = "The server is not ready", body = ReadinessBody),
    ),
)]
pub async fn ready(health: Health, stopping: Arc<AtomicBool>) -> Result<Ready, Problem> {
    // The check takes time, so the flag is read after it.
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

/// Returns the process's metrics in Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "server", operation_id = "getMetrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
pub async fn metrics(render: RenderMetrics) -> Result<Ready, Problem> {
    let mut response = Response::new(Bytes::from(render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(fresh(response))
}

/// The program's version and the installation's id.
#[derive(Serialize, ToSchema)]
#[schema(as = Version)]
pub struct VersionBody {
    /// The program's version.
    version: &'static str,
    /// The commit of the build; null if unknown.
    #[schema(required)]
    commit: Option<&'static str>,
    /// The JPEG codec: `pure` or `turbo`.
    jpeg_backend: &'static str,
    /// The installation's id.
    installation_id: InstallationId,
}

/// Returns the program's version and the installation's id.
#[utoipa::path(
    get, path = "/version", tag = "server", operation_id = "getVersion",
    responses((status = 200, description = "The version", body = VersionBody)),
)]
pub async fn version(catalog: Catalog) -> Result<Ready, Problem> {
    let body = VersionBody {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("PM_COMMIT").filter(|commit| !commit.is_empty()),
        jpeg_backend: JPEG_BACKEND,
        installation_id: catalog.installation(),
    };
    reply::json(StatusCode::OK, &body).map(fresh)
}

/// The index of the server's paths.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiIndex)]
pub struct IndexBody {
    /// `pm`.
    name: &'static str,
    /// The program's version.
    version: &'static str,
    /// All paths.
    paths: Vec<PathBody>,
}

/// A path of the server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiPath)]
pub struct PathBody {
    /// The path template, with parameters in braces.
    path: &'static str,
    /// The allowed methods, separated by commas.
    methods: &'static str,
}

/// The path of each resource, and its methods.
type Paths = Vec<(&'static str, &'static str)>;

/// Lists the server's paths and their methods.
#[utoipa::path(
    get, path = "/", tag = "server", operation_id = "getIndex",
    responses((status = 200, description = "The paths and their methods", body = IndexBody)),
)]
pub async fn index(paths: Paths) -> Result<Ready, Problem> {
    let paths = paths.into_iter().map(|(path, methods)| PathBody { path, methods }).collect();
    reply::json(StatusCode::OK, &IndexBody { name: "pm", version: env!("CARGO_PKG_VERSION"), paths })
}

/// Marks a response as not cacheable.
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
