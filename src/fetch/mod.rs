//! The downloader: fetches a picture that a stranger named, without ever being led into our own network.
//!
//! Three walls stand around every request: a literal address in a URL is judged before it is used, a name is resolved
//! by a resolver that hands on permitted addresses alone, and redirects are followed here, each target
//! judged like the first URL. Time, bytes and redirects are bounded. It never looks at what the bytes are, never sends
//! cookies, credentials or a Referer, never uses a proxy from the environment and never unpacks an encoding.

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

/// What is fetched and how much patience there is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which addresses are connected to.
    pub policy: AddressPolicy,
    /// The most bytes a picture may have.
    pub max_bytes: u64,
    /// Time for everything: names, connections, redirects and the whole body.
    pub timeout: Duration,
    /// Time for one connection, its name and its TLS handshake included.
    pub connect_timeout: Duration,
    /// Time the host may be silent, before its answer or within it.
    pub idle_timeout: Duration,
    /// Redirects that are followed for one picture.
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

/// Bytes a second that a body must have on the average, once the grace is over.
const LEAST_RATE: u64 = 32;
/// For so long a body may be slower.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// Fetches pictures; clones share their connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    config: Arc<Config>,
}

impl Fetcher {
    /// Builds the client and installs the process's TLS provider, if there is none yet.
    ///
    /// # Errors
    /// [`Error::Setup`] if the client cannot be built.
    pub fn new(config: &Config) -> Result<Self, Error> {
        // An error means that a provider is installed already, which serves as well.
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
            // Another crate may switch these features of the HTTP client on; a small body must not grow behind our
            // count.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { client, config: Arc::new(config.clone()) })
    }

    /// Fetches the whole body behind `url`, following redirects.
    ///
    /// Memory: the body, at most `max_bytes`. Dropping the future ends the download.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::retry`] tells whether another attempt makes sense.
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
        // Room is asked for once. A host that promises more than it sends costs address space only, never memory.
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
            if elapsed > RATE_GRACE && (body.len() as u64) < LEAST_RATE * elapsed.as_secs() {
                return Err(Error::Dripping { host, least: LEAST_RATE });
            }
        }
    }
}

/// What every request says. Pictures that can be read are named, so that a host which chooses by this header sends one.
fn request_headers() -> header::HeaderMap {
    let accept = "image/jpeg,image/png,image/webp,image/avif,image/gif,image/bmp,image/tiff,*/*;q=0.5";
    header::HeaderMap::from_iter([
        (header::ACCEPT, header::HeaderValue::from_static(accept)),
        (header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity")),
    ])
}

/// Where a redirect leads; relative targets are resolved against `from`.
fn redirect_target(response: &Response, from: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?;
    from.join(str::from_utf8(location.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests;
