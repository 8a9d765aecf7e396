//! What can go wrong with a download, sorted by what the caller does next.
//!
//! The sentences are shown to whoever gave the address: they name the host, never the rest of the URL and never what
//! the host's name resolved to. The causes are kept as sources for the log.

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

/// Why a picture was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one that is fetched from.
    #[error(transparent)]
    Address(Refusal),
    /// A redirect leads to an address that is not fetched from.
    #[error("the redirect is not followed: {0}")]
    Redirect(#[source] Refusal),
    /// The host's name has private addresses only.
    #[error("{host} has no public address")]
    NotPublic {
        /// Whose name it is.
        host: Host,
    },
    /// The host's name does not exist.
    #[error("there is no host {host}")]
    HostNotFound {
        /// The name.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// The host's name could not be looked up for the moment.
    #[error("the name {host} could not be looked up")]
    Dns {
        /// The name.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// No connection came about, or it broke before the body was complete.
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
    /// No connection was made in time.
    #[error("{host} did not accept a connection in time")]
    ConnectTimeout {
        /// The other end.
        host: Host,
        /// What the client says.
        source: reqwest::Error,
    },
    /// The host fell silent.
    #[error("{host} sent nothing for {} s", .limit.as_secs_f32())]
    Silent {
        /// The other end.
        host: Host,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The body came too slowly.
    #[error("{host} sends fewer than {least} bytes a second")]
    Dripping {
        /// The other end.
        host: Host,
        /// The least rate in bytes a second.
        least: u64,
    },
    /// All of it took too long.
    #[error("the download from {host} was not done within {} s", .limit.as_secs_f32())]
    Slow {
        /// Where it began.
        host: Host,
        /// The time for everything.
        limit: Duration,
    },
    /// The host answers with a status that is neither a success nor a redirect that can be followed.
    #[error("{host} answers {status}")]
    Status {
        /// Who answers.
        host: Host,
        /// The HTTP status.
        status: u16,
        /// How long to wait before the next attempt, if the host says so.
        retry_after: Option<Duration>,
    },
    /// The redirects do not end.
    #[error("there are more than {followed} redirects")]
    TooManyRedirects {
        /// How many were followed.
        followed: usize,
    },
    /// The body is over the limit.
    #[error("{}", too_large(*bytes, *max_bytes))]
    TooLarge {
        /// What the host announced, if it did.
        bytes: Option<u64>,
        /// The most that is read.
        max_bytes: u64,
    },
    /// The client cannot be built.
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
}

/// The host and port of a URL, the part of it that may be shown and logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Error {
    /// The code that clients see.
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

    /// How often another attempt makes sense; `None` if never.
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

    /// Whether the same address may well work later.
    pub fn is_transient(&self) -> bool {
        self.retry().is_some()
    }

    /// How long the host asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn of_status(host: Host, response: &Response) -> Self {
        let status = response.status().as_u16();
        let wish = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wish
            .filter(|_| code_of_status(status) == ErrorCode::SourceUnavailable)
            .and_then(|wish| parse_retry_after(wish, SystemTime::now()));
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

/// Sorts what the HTTP client reports about one request to `host`.
pub(super) fn within_connection(host: Host, error: reqwest::Error) -> Error {
    // The URL may hold a secret in its query, and the source ends up in the log.
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

/// Seconds, or an HTTP date; a date that is past means now.
pub(super) fn parse_retry_after(wish: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = wish.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = httpdate::parse_http_date(wish.trim()).ok()?;
    Some(moment.duration_since(now).unwrap_or_default())
}

fn too_large(bytes: Option<u64>, max_bytes: u64) -> String {
    let unit = |bytes: u64| match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1024 * 1024)),
    };
    match bytes {
        Some(bytes) => format!("the image has {}; at most {} are read", unit(bytes), unit(max_bytes)),
        None => format!("the image has more than {}, the most that is read", unit(max_bytes)),
    }
}

/// The first error of type `T` among `error` and its causes.
fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error passes over the error that it wraps when it is asked for its source.
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
    fn every_status_has_its_code_and_its_retries() {
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
    fn a_wait_is_read_in_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let seconds = |wish: &str| parse_retry_after(wish, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-5"), None);
    }

    #[test]
    fn sizes_are_told_in_units_people_use() {
        let max = 32 * 1024 * 1024;
        assert_eq!(too_large(Some(84_000_000), max), "the image has 81 MiB; at most 32 MiB are read");
        assert_eq!(too_large(Some(max + 1), max), "the image has 33 MiB; at most 32 MiB are read");
        assert_eq!(too_large(None, max), "the image has more than 32 MiB, the most that is read");
    }
}
