//! The HTTP API: routes and handlers over [`Catalog`], [`Blobs`] and [`Health`], and the accept loop that serves them.
//!
//! A handler parses the request, calls one service and builds the response. This module contains no SQL, no
//! transactions and no cache logic.

mod admission;
mod endpoint;
mod feed;
mod headers;
mod openapi;
mod problem;
mod reply;
mod request;
mod resources;
mod serve;
mod table;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use endpoint::PublicRead;
pub use headers::forwarded::{ForwardedHeader, Proxies};
pub use request::{
    extract::{Pairs, query_parameters},
    principal::Authentication,
};
pub use resources::{
    originals::Originals,
    presets::{ImageDelivery, Placeholder},
};
pub use serve::{
    cors::Origins,
    hosts::{AllowedHosts, Hosts},
    server::serve,
    tls::{Error as TlsError, Tls},
};

use crate::{blobs::Blobs, catalog::Catalog, domain::Quota, health::Health, reload::Reload};

/// Returns the OpenAPI 3.1 document as JSON, for servers with and without authentication.
///
/// # Errors
/// If the document cannot be serialized, which is a bug.
pub fn openapi_json() -> Result<bytes::Bytes, String> {
    openapi::json(&table::TABLE, None)
}

/// Renders the process's metrics as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The services that handlers call.
#[derive(Clone)]
pub struct State {
    /// Products and users.
    pub catalog: Catalog,
    /// Stored images.
    pub blobs: Blobs,
    /// Health checks of the database, cache, queue and storage.
    pub health: Health,
    /// Settings for image delivery.
    pub images: ImageDelivery,
    /// Whether the server returns uploaded originals when authentication is off.
    pub originals: Originals,
    /// Renders the body of `/metrics`.
    pub metrics: RenderMetrics,
}

/// The part of the API that the server exposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole API.
    Everything,
    /// Only `/healthz`, `/readyz` and `/metrics`, for a worker.
    Status,
}

/// The server's configuration and limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The part of the API that the server exposes.
    pub scope: Scope,
    /// Open connections, at most three quarters of the process's file descriptors. When all slots are used, the server
    /// closes the slowest client's connection.
    pub max_connections: usize,
    /// Requests for files in progress at a time; also the upper bound for all other requests. A request above the limit
    /// waits up to 3 s, in a fair queue, and then gets 503 with `Retry-After`.
    pub max_in_flight: usize,
    /// Open event streams, at most half of `max_connections`.
    pub max_streams: usize,
    /// Open connections per IPv4 address or IPv6 /64 network; loopback addresses have no limit.
    pub max_connections_per_address: usize,
    /// Timeout for a request's head.
    pub header_timeout: Duration,
    /// Idle time between two requests after which the server closes the connection.
    pub keep_alive: Duration,
    /// How long a client may read nothing of its response. Then the server closes the connection, or the HTTP/2 stream.
    pub stall_limit: Duration,
    /// Timeout for a whole body; then 408.
    pub body_timeout: Duration,
    /// Timeout for a whole request up to the response's head; then 503.
    pub deadline: Duration,
    /// Largest JSON body in bytes; 413 beyond it.
    pub max_body: usize,
    /// How clients authenticate, if at all.
    pub authentication: Authentication,
    /// Resources that clients may read without authentication.
    pub public_read: PublicRead,
    /// The rate limit per client; `None` means no limit.
    pub quota: Option<Quota>,
    /// The TLS certificate; without one, connections are not encrypted.
    pub tls: Option<Tls>,
    /// `max-age` of `Strict-Transport-Security` in seconds, sent in responses over TLS.
    pub hsts_seconds: Option<u64>,
    /// Proxies whose forwarding headers the server trusts.
    pub proxies: Proxies,
    /// Origins whose pages may read responses (CORS).
    pub origins: Origins,
    /// Hosts that the server accepts in requests.
    pub hosts: Hosts,
    /// Largest JSON body of a batch of products in bytes; 413 beyond it.
    pub max_batch_body: usize,
    /// Largest uploaded file in bytes; 413 beyond it.
    pub max_upload: u64,
    /// Grace period for requests in flight after the server is asked to stop.
    pub grace: Duration,
    /// Requests to read the certificate's files again.
    pub reload: Reload,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scope: Scope::Everything,
            max_connections: 2048,
            max_streams: 1024,
            max_in_flight: 512,
            max_connections_per_address: 256,
            header_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            stall_limit: Duration::from_secs(30),
            body_timeout: Duration::from_secs(25),
            deadline: Duration::from_secs(30),
            max_body: 1 << 20,
            authentication: Authentication::Off,
            public_read: PublicRead::default(),
            quota: None,
            tls: None,
            hsts_seconds: None,
            proxies: Proxies::default(),
            origins: Origins::Own,
            hosts: Hosts::default(),
            max_batch_body: 8 << 20,
            max_upload: 32 << 20,
            grace: Duration::from_secs(10),
            reload: Reload::default(),
        }
    }
}
