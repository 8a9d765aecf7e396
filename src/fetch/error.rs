//! Download errors.
//!
//! Messages are shown to the client: they name the host, never the rest of the URL or the resolved addresses. Causes
//! are kept as sources for the log.

use std::{
    error::Error as StdError,
    fmt, io,
    time::{Duration, SystemTime},
};

use reqwest::{Response, Url, header};

use super::resolver::Unresolved;
use crate::{
    code::ErrorCode,
    domain::address::Refusal,
    retry::{DOUBTFUL, Policy, TRANSIENT},
};

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not permitted.
    #[error(transparent)]
    Address(Refusal),
    /// A redirect target is not permitted.
    #[error("redirect refused: {0}")]
    Redirect(#[source] Refusal),
    /// The host has no permitted address.
    #[error("{host} has no public address")]
    NotPublic {
        /// Host.
        host: Host,
    },
    /// The host does not exist in DNS.
    #[error("host {host} not found")]
    HostNotFound {
        /// The name.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// DNS lookup failed temporarily.
    #[error("DNS lookup of {host} failed")]
    Dns {
        /// The name.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// The connection failed or broke before the body was complete.
    #[error("the connection to {host} failed")]
    Connect {
        /// The other end.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// The TLS handshake failed.
    #[error("{host} has no valid certificate or does not speak TLS")]
    Tls {
        /// The other end.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// Connecting timed out.
    #[error("connecting to {host} timed out")]
    ConnectTimeout {
        /// The other end.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// The host stopped sending.
    #[error("{host} sent nothing for {} s", .limit.as_secs_f32())]
    Silent {
        /// The other end.
        host: Host,
        /// Time without data.
        limit: Duration,
    },
    /// The body arrived too slowly.
    #[error("{host} sends fewer than {least} bytes per second")]
    Dripping {
        /// The other end.
        host: Host,
        /// Minimum rate in bytes per second.
        least: u64,
    },
    /// The whole download took too long.
    #[error("the download from {host} took more than {} s", .limit.as_secs_f32())]
    Slow {
        /// First host.
        host: Host,
        /// Time limit.
        limit: Duration,
    },
    /// The response status is neither a success nor a redirect that can be followed.
    #[error("{host} responded with status {status}")]
    Status {
        /// Host.
        host: Host,
        /// The HTTP status.
        status: u16,
        /// Delay that the host requested.
        retry_after: Option<Duration>,
    },
    /// Too many redirects.
    #[error("more than {followed} redirects")]
    TooManyRedirects {
        /// Redirects followed.
        followed: usize,
    },
    /// The body exceeds the limit.
    #[error("{}", too_large(*bytes, *max_bytes))]
    TooLarge {
        /// Declared length, if any.
        bytes: Option<u64>,
        /// Limit in bytes.
        max_bytes: u64,
    },
    /// The HTTP client cannot be built.
    #[error("cannot create the HTTP client")]
    Setup(#[source] reqwest::Error),
}

/// Host and port of a URL: the part that may be shown and logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Error {
    /// Returns the error code for clients.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Address(_) | Self::Redirect(_) | Self::NotPublic { .. } => ErrorCode::AddressRefused,
            Self::HostNotFound { .. } => ErrorCode::HostNotFound,
            Self::Dns { .. } => ErrorCode::DnsFailed,
            Self::Connect { .. } => ErrorCode::ConnectFailed,
            Self::Tls { .. } => ErrorCode::TlsFailed,
            Self::ConnectTimeout { .. } | Self::Silent { .. } | Self::Dripping { .. } | Self::Slow { .. } => {
                ErrorCode::TimedOut
            }
            Self::Status { status, .. } => code_of_status(*status),
            Self::TooManyRedirects { .. } => ErrorCode::RedirectRefused,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Setup(_) => ErrorCode::Internal,
        }
    }

    /// Returns the retry policy; `None` if a retry cannot help.
    pub fn retry(&self) -> Option<Policy> {
        match self.code() {
            ErrorCode::HostNotFound => Some(DOUBTFUL),
            ErrorCode::DnsFailed
            | ErrorCode::ConnectFailed
            | ErrorCode::TlsFailed
            | ErrorCode::TimedOut
            | ErrorCode::SourceUnavailable => Some(TRANSIENT),
            _ => None,
        }
    }

    /// Returns whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        self.retry().is_some()
    }

    /// Returns the delay that the host requested.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn of_status(host: Host, response: &Response) -> Self {
        let status = response.status().as_u16();
        let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = value
            .filter(|_| code_of_status(status) == ErrorCode::SourceUnavailable)
            .and_then(|value| parse_retry_after(value, SystemTime::now()));
        Self::Status { host, status, retry_after }
    }
}

impl Host {
    pub(super) fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Classifies an error of the HTTP client.
pub(super) fn within_connection(host: Host, error: reqwest::Error) -> Error {
    // The URL may contain a secret, and the source is logged.
    let source = error.without_url();
    match find::<Unresolved>(&source) {
        Some(Unresolved::NotPublic) => return Error::NotPublic { host },
        Some(Unresolved::NotFound(_)) => return Error::HostNotFound { host, source },
        Some(Unresolved::Failed(_)) => return Error::Dns { host, source },
        None => {}
    }
    if find::<rustls::Error>(&source).is_some() {
        Error::Tls { host, source }
    } else if source.is_timeout() {
        Error::ConnectTimeout { host, source }
    } else {
        Error::Connect { host, source }
    }
}

fn code_of_status(status: u16) -> ErrorCode {
    match status {
        401 | 403 => ErrorCode::SourceForbidden,
        404 | 410 => ErrorCode::SourceNotFound,
        408 | 425 | 429 | 500.. => ErrorCode::SourceUnavailable,
        300..=399 => ErrorCode::RedirectRefused,
        _ => ErrorCode::SourceRefused,
    }
}

/// Parses seconds or an HTTP date; a past date means no delay.
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = httpdate::parse_http_date(value.trim()).ok()?;
    Some(moment.duration_since(now).unwrap_or_default())
}

fn too_large(bytes: Option<u64>, max_bytes: u64) -> String {
    let unit = |bytes: u64| match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1024 * 1024)),
    };
    match bytes {
        Some(bytes) => format!("the image has {}; the limit is {}", unit(bytes), unit(max_bytes)),
        None => format!("the image has more than {}, the limit", unit(max_bytes)),
    }
}

/// Returns the first error of type `T` in the chain of causes.
fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // `io::Error::source` skips the wrapped error itself.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_code_and_a_retry_policy() {
        use ErrorCode::{RedirectRefused, SourceForbidden, SourceNotFound, SourceRefused, SourceUnavailable};
        for (statuses, code, retry) in [
            (&[404, 410][..], SourceNotFound, None),
            (&[401, 403], SourceForbidden, None),
            (&[400, 402, 405, 406, 409, 415, 418, 451], SourceRefused, None),
            (&[300, 302, 304, 305, 399], RedirectRefused, None),
            (&[408, 425, 429, 500, 501, 502, 503, 504, 520, 599], SourceUnavailable, Some(TRANSIENT)),
        ] {
            for &status in statuses {
                let error = Error::Status { host: Host("example.com".into()), status, retry_after: None };
                assert_eq!((error.code(), error.retry()), (code, retry), "{status}");
                assert_eq!(error.is_transient(), retry.is_some());
            }
        }
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_or_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let seconds = |value: &str| parse_retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-5"), None);
    }

    #[test]
    fn sizes_are_shown_in_readable_units() {
        let max = 32 * 1024 * 1024;
        assert_eq!(too_large(Some(84_000_000), max), "the image has 81 MiB; the limit is 32 MiB");
        assert_eq!(too_large(Some(max + 1), max), "the image has 33 MiB; the limit is 32 MiB");
        assert_eq!(too_large(None, max), "the image has more than 32 MiB, the limit");
    }
}
