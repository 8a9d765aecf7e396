//! Sends POST requests to untrusted URLs, with the same address checks as downloads. It follows no redirects and reads
//! only the response head.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{self, HeaderMap};
use tokio::time::timeout;

use super::{
    Fetcher,
    error::{Error, Host, parse_retry_after, within_connection},
};

/// Time limit: DNS, connection, request and response head.
const LIMIT: Duration = Duration::from_secs(15);

/// Head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Delay that the host requested.
    pub retry_after: Option<Duration>,
}

impl Fetcher {
    /// Posts `body` to `url`.
    ///
    /// # Errors
    /// If the URL is not permitted, or no response arrives within 15 s.
    pub async fn post(&self, url: &str, headers: HeaderMap, body: Bytes) -> Result<Answer, Error> {
        let url = self.config.policy.check_url(url).map_err(Error::Address)?;
        let host = Host::of(&url);
        let sent = self.client.post(url).headers(headers).body(body).send();
        let response = match timeout(LIMIT, sent).await {
            Ok(sent) => sent.map_err(|error| within_connection(host, error))?,
            Err(_) => return Err(Error::Slow { host, limit: LIMIT }),
        };
        let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = value.and_then(|value| parse_retry_after(value, SystemTime::now()));
        Ok(Answer { status: response.status().as_u16(), retry_after })
    }
}
