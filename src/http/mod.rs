//! The HTTP room: routes and handlers over [`Catalog`], [`Blobs`] and [`Health`], served from an accept loop of its own.
//!
//! Handlers parse, call one service and shape the answer. There is no SQL here, no transaction and no cache logic.

mod access;
mod admission;
mod headers;
mod openapi;
mod problem;
mod reply;
mod request;
mod resources;
mod route;
mod serve;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use access::PublicRead;
pub use headers::forwarded::{ForwardedHeader, Proxies};
pub use openapi::json as openapi_json;
pub use request::{
    caller::Authentication,
    extract::{Pairs, query_parameters},
};
pub use resources::{
    originals::Originals,
    pictures::{Pictures, Placeholder},
};
pub use serve::{
    cors::Origins,
    hosts::{AllowedHosts, Hosts},
    server::serve,
    tls::{Error as TlsError, Tls},
};

use crate::{blobs::Blobs, catalog::Catalog, domain::Quota, health::Health, stop::Reload};

/// Writes the process's figures as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the handlers work on.
#[derive(Clone)]
pub struct State {
    /// Products and users.
    pub catalog: Catalog,
    /// Stored pictures.
    pub blobs: Blobs,
    /// Whether the engines answer.
    pub health: Health,
    /// How pictures are handed out.
    pub pictures: Pictures,
    /// Whether uploaded originals are answered where authentication is off.
    pub originals: Originals,
    /// What `/metrics` answers.
    pub metrics: RenderMetrics,
}

/// What clients get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole API.
    Everything,
    /// Only what tells about the process: a worker's health and figures.
    Status,
}

/// What clients get, and the limits within which they are served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The part of the API that is there.
    pub scope: Scope,
    /// Open connections, at most three quarters of the process's file descriptors; the slowest client makes room for one
    /// more.
    pub max_connections: usize,
    /// Requests for files that are worked on at a time, and at most as many others; one more waits up to a second, in turn with
    /// other clients and connections, and is then answered 503 with `Retry-After`.
    pub max_in_flight: usize,
    /// Open streams of events, at most half of the connections that there may be.
    pub max_streams: usize,
    /// Open connections of one IPv4 address or one IPv6 network of 64 bits; the machine's own addresses have no limit.
    pub max_connections_per_address: usize,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time for the wait between two requests; the connection is closed after it.
    pub keep_alive: Duration,
    /// How long a client may take nothing of its answer; the connection, over HTTP/2 the stream, is closed after it.
    pub stall_limit: Duration,
    /// Time for a whole body; 408 when it is over.
    pub body_timeout: Duration,
    /// Time for a whole request up to its answer's head; 503 when it is over.
    pub deadline: Duration,
    /// Largest JSON body in bytes; 413 beyond it.
    pub max_body: usize,
    /// Whether clients have to prove who they are.
    pub authentication: Authentication,
    /// What everybody may read although clients have to prove who they are.
    pub public_read: PublicRead,
    /// How often a client may come; as often as it likes unless set.
    pub quota: Option<Quota>,
    /// The certificate that is shown; without one connections are not encrypted.
    pub tls: Option<Tls>,
    /// For how long browsers are told to come back over TLS alone, in seconds, where they did come so.
    pub hsts_seconds: Option<u64>,
    /// Who is believed about where a request comes from.
    pub proxies: Proxies,
    /// Whose pages may read the answers.
    pub origins: Origins,
    /// The hosts that requests may name.
    pub hosts: Hosts,
    /// Largest JSON body of several products in bytes; 413 beyond it.
    pub max_batch_body: usize,
    /// Largest file that is uploaded, in bytes; 413 beyond it.
    pub max_upload: u64,
    /// Time for what is in flight when the server is asked to stop.
    pub grace: Duration,
    /// Asks for the certificate's files to be read again.
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
