//! Downloads images from untrusted URLs without access to private networks (SSRF protection).
//!
//! Three checks protect every request: a literal IP address in a URL is checked before use, the resolver returns only
//! permitted addresses, and each redirect target is checked like the first URL. Time, bytes and redirects are limited.
//! The downloader does not inspect the bytes, sends no cookies, credentials or Referer, ignores proxies of the
//! environment, and never decompresses a body.

mod error;
mod post;
mod resolver;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, Url, header, redirect::Policy};
use tokio::time::timeout;

use crate::domain::address::AddressPolicy;

use error::within_connection;
pub use error::{Error, Host};
pub use post::Answer;

/// Configures downloads and their limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Permitted addresses.
    pub policy: AddressPolicy,
    /// Maximum bytes of an image.
    pub max_bytes: u64,
    /// Time limit of a download: DNS, connections, redirects and the whole body.
    pub timeout: Duration,
    /// Time limit of one connection, including DNS and TLS handshake.
    pub connect_timeout: Duration,
    /// Maximum time without data from the host.
    pub idle_timeout: Duration,
    /// Maximum redirects of one download.
    pub max_redirects: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: AddressPolicy::default(),
            max_bytes: 32 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            max_redirects: 3,
        }
    }
}

/// Minimum average rate of a body after `RATE_GRACE`, in bytes per second.
const MIN_BYTES_PER_SECOND: u64 = 32;
/// Time during which a body may be slower.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// Downloads images; clones share connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    config: Arc<Config>,
}

impl Fetcher {
    /// Creates the HTTP client, and installs the process's TLS provider if there is none.
    ///
    /// # Errors
    /// [`Error::Setup`] if the client cannot be built.
    pub fn new(config: &Config) -> Result<Self, Error> {
        // An error means that a provider is already installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("pm/", env!("CARGO_PKG_VERSION")))
            .default_headers(request_headers())
            .dns_resolver(Arc::new(resolver::PublicOnly::new(config.policy.clone())))
            .redirect(Policy::none())
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(4)
            .no_proxy()
            .referer(false)
            // Other crates may enable these features. Decompression could exceed the byte limit.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { client, config: Arc::new(config.clone()) })
    }

    /// Downloads the body of `url`, following redirects.
    ///
    /// Uses at most `max_bytes` of memory. Dropping the future aborts the download.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::retry`] returns the retry policy.
    pub async fn fetch(&self, url: &str) -> Result<Bytes, Error> {
        let url = self.config.policy.check_url(url).map_err(Error::Address)?;
        let limit = self.config.timeout;
        let host = Host::of(&url);
        timeout(limit, self.follow(url)).await.unwrap_or(Err(Error::Slow { host, limit }))
    }

    async fn follow(&self, mut url: Url) -> Result<Bytes, Error> {
        for _ in 0..=self.config.max_redirects {
            let response = self.send(&url).await?;
            let host = Host::of(&url);
            if response.status().is_success() {
                return self.read(response, host).await;
            }
            match redirect_target(&response, &url) {
                Some(target) => {
                    self.config.policy.check(&target).map_err(Error::Redirect)?;
                    url = target;
                }
                None => return Err(Error::of_status(host, &response)),
            }
        }
        Err(Error::TooManyRedirects { followed: self.config.max_redirects })
    }

    async fn send(&self, url: &Url) -> Result<Response, Error> {
        let host = Host::of(url);
        let limit = self.config.idle_timeout;
        match timeout(self.config.connect_timeout + limit, self.client.get(url.clone()).send()).await {
            Ok(sent) => sent.map_err(|error| within_connection(host, error)),
            Err(_) => Err(Error::Silent { host, limit }),
        }
    }

    async fn read(&self, mut response: Response, host: Host) -> Result<Bytes, Error> {
        let (limit, max_bytes) = (self.config.idle_timeout, self.config.max_bytes);
        let declared = response.content_length();
        if declared.is_some_and(|bytes| bytes > max_bytes) {
            return Err(Error::TooLarge { bytes: declared, max_bytes });
        }
        // Allocate once. A declared length that is too large costs only address space, not memory.
        let mut body = BytesMut::with_capacity(usize::try_from(declared.unwrap_or(0)).unwrap_or(0));
        let began = Instant::now();
        loop {
            let chunk = match timeout(limit, response.chunk()).await {
                Ok(chunk) => chunk.map_err(|error| within_connection(host.clone(), error))?,
                Err(_) => return Err(Error::Silent { host, limit }),
            };
            let Some(chunk) = chunk else { return Ok(body.freeze()) };
            if body.len() as u64 + chunk.len() as u64 > max_bytes {
                return Err(Error::TooLarge { bytes: None, max_bytes });
            }
            body.extend_from_slice(&chunk);
            let elapsed = began.elapsed();
            if elapsed > RATE_GRACE && (body.len() as u64) < MIN_BYTES_PER_SECOND * elapsed.as_secs() {
                return Err(Error::Dripping { host, least: MIN_BYTES_PER_SECOND });
            }
        }
    }
}

/// Returns the headers of every request. `Accept` names readable formats for hosts that negotiate.
fn request_headers() -> header::HeaderMap {
    let accept = "image/jpeg,image/png,image/webp,image/avif,image/gif,image/bmp,image/tiff,*/*;q=0.5";
    header::HeaderMap::from_iter([
        (header::ACCEPT, header::HeaderValue::from_static(accept)),
        (header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity")),
    ])
}

/// Returns the target of a redirect, resolved against `from`.
fn redirect_target(response: &Response, from: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?;
    from.join(str::from_utf8(location.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests;
