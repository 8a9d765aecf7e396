//! Fetches the issuer's metadata and keys.
//!
//! Bytes and time are limited, and redirects are not followed. The URLs derive from the operator's settings, so private
//! addresses are permitted.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Response, Url, redirect::Policy};
use serde::Deserialize;
use serde_json::Value;

use super::Error;

const MAX_BYTES: usize = 512 * 1024;
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error("{0} is not a URL")]
    Address(String),
    #[error("{url} responded with status {status}")]
    Status { url: Url, status: u16 },
    #[error("{0} is longer than 512 KiB")]
    TooLong(Url),
    #[error("{url} is not valid JSON of the expected form")]
    Unreadable { url: Url, source: serde_json::Error },
    #[error("{url} describes another issuer: {issuer}")]
    AnotherIssuer { url: Url, issuer: String },
    #[error("{0} must use https, or be on a loopback address")]
    Insecure(Url),
    #[error("request to {0} failed")]
    Unavailable(Url, #[source] reqwest::Error),
}

/// Issuer metadata (RFC 8414, OpenID Connect Discovery).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// A response with keys.
pub(super) struct Published {
    /// Elements of `keys`.
    pub keys: Vec<Value>,
    /// `max-age` of the response's `Cache-Control`.
    pub max_age: Option<Duration>,
}

/// Fetches documents of one issuer.
#[derive(Debug)]
pub(super) struct Documents {
    issuer: String,
    client: Client,
}

impl Documents {
    pub(super) fn new(issuer: &str) -> Result<Self, Error> {
        // An error means that a provider is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("pm/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .timeout(TIME_LIMIT)
            .no_proxy()
            .referer(false)
            .build()
            .map_err(|error| Error::Setup(Arc::new(error)))?;
        Ok(Self { issuer: issuer.to_owned(), client })
    }

    /// Returns the URL of the issuer's keys.
    pub(super) async fn keys_address(&self) -> Result<Url, Error> {
        let mut last = None;
        for address in self.well_known() {
            match self.metadata(&address).await {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(unavailable(last.unwrap_or_else(|| Useless::Address(self.issuer.clone()))))
    }

    /// Fetches the keys at `url`.
    pub(super) async fn keys(&self, url: &Url) -> Result<Published, Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let (set, max_age) = self.fetch::<Set>(url).await.map_err(unavailable)?;
        Ok(Published { keys: set.keys, max_age })
    }

    /// Returns candidate metadata URLs. OpenID appends its path to the issuer's; RFC 8414 inserts its path between host
    /// and path.
    fn well_known(&self) -> Vec<String> {
        let issuer = self.issuer.trim_end_matches('/');
        let mut places = vec![format!("{issuer}/.well-known/openid-configuration")];
        if let Ok(mut url) = Url::parse(issuer) {
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
            places.push(url.into());
        }
        places
    }

    async fn metadata(&self, address: &str) -> Result<Url, Useless> {
        let url = Url::parse(address).map_err(|_| Useless::Address(address.to_owned()))?;
        let (metadata, _) = self.fetch::<Metadata>(&url).await?;
        // Otherwise one issuer on a host could impersonate another one.
        if metadata.issuer != self.issuer {
            return Err(Useless::AnotherIssuer { url, issuer: metadata.issuer });
        }
        let keys = Url::parse(&metadata.jwks_uri).map_err(|_| Useless::Address(metadata.jwks_uri))?;
        if keys.scheme() == "https" || is_this_machine(&keys) { Ok(keys) } else { Err(Useless::Insecure(keys)) }
    }

    async fn fetch<T: for<'de> Deserialize<'de>>(&self, url: &Url) -> Result<(T, Option<Duration>), Useless> {
        let unavailable = |error| Useless::Unavailable(url.clone(), error);
        let mut response = self.client.get(url.clone()).send().await.map_err(unavailable)?;
        if !response.status().is_success() {
            return Err(Useless::Status { url: url.clone(), status: response.status().as_u16() });
        }
        let max_age = max_age(&response);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(Useless::TooLong(url.clone()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let read = serde_json::from_slice(&bytes);
        Ok((read.map_err(|source| Useless::Unreadable { url: url.clone(), source })?, max_age))
    }
}

/// Returns whether `url` has a loopback host, where no network can tamper with the response.
pub(super) fn is_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || literal.is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

fn max_age(response: &Response) -> Option<Duration> {
    let value = response.headers().get(reqwest::header::CACHE_CONTROL)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok())?;
    Some(Duration::from_secs(seconds))
}

fn unavailable(useless: Useless) -> Error {
    Error::Unavailable(Arc::new(useless))
}
