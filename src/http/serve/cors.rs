//! CORS and security headers.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::endpoint::{Kind, Route};

const HSTS: HeaderName = header::STRICT_TRANSPORT_SECURITY;
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// `Access-Control-Allow-Headers`: request headers that pages of other origins may send.
const SENT: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Accept, Range, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID, X-Request-Id",
);
const READ: HeaderValue = HeaderValue::from_static(
    "ETag, Location, Link, X-Request-Id, X-Cache, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, \
     Content-Range, Accept-Ranges",
);
/// `Access-Control-Max-Age`: how long a browser caches a preflight response, in seconds.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose pages may read responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Only the server's own origin.
    #[default]
    Own,
    /// Every origin.
    Any,
    /// These origins.
    Listed(Vec<String>),
}

impl Origins {
    /// Parses `*`, or origins such as `https://shop.example`, separated by commas.
    ///
    /// # Errors
    /// A message that names the first invalid entry.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |entry: &str| {
            let url = url::Url::parse(entry).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let origin = url.map(|url| url.origin().ascii_serialization());
            let is_plain = origin.as_deref() == Some(entry.trim_end_matches('/'));
            origin.filter(|_| is_plain).ok_or_else(|| format!("has `{entry}`, which is not an origin"))
        };
        entries.map(read).collect::<Result<_, _>>().map(Self::Listed)
    }

    /// Whether pages of `origin` may read responses.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Own => false,
            Self::Any => true,
            Self::Listed(list) => list.iter().any(|entry| entry.as_bytes() == origin.as_bytes()),
        }
    }

    /// Adds CORS headers to a response, if `origin` is allowed.
    ///
    /// Never allows credentials that the browser adds, such as cookies: a page sends its token in `Authorization`.
    pub fn add_headers(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        let allowed = match (self, origin) {
            (Self::Own, _) => return,
            (Self::Any, _) => HeaderValue::from_static("*"),
            (Self::Listed(_), origin) => {
                // A shared cache must not serve one origin's response to another.
                answer.append(header::VARY, HeaderValue::from_static("Origin"));
                let Some(origin) = origin.filter(|origin| self.allow(origin)) else { return };
                origin.clone()
            }
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    }

    /// Adds the CORS headers of a preflight response.
    pub fn add_preflight_headers(&self, route: Route, answer: &mut HeaderMap) {
        if *self != Self::Own {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(route.allow()));
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, SENT);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        }
    }
}

/// Formats the value as [`parse`](Self::parse) reads it.
impl std::fmt::Display for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => Ok(()),
            Self::Any => f.write_str("*"),
            Self::Listed(list) => f.write_str(&list.join(",")),
        }
    }
}

/// Adds security headers: no content sniffing, no subresources, no referrer, and HSTS.
///
/// Keeps a `Content-Security-Policy` or `Referrer-Policy` that the handler has set.
pub fn protect(route: Option<Route>, hsts: Option<&HeaderValue>, answer: &mut HeaderMap) {
    answer.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    answer.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    if route.is_some_and(|route| route.is(Kind::File)) {
        // Pages of other origins may embed images.
        answer.insert(CORP, HeaderValue::from_static("cross-origin"));
    }
    if let Some(value) = hsts {
        answer.insert(HSTS, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors_headers(origins: &str, origin: &'static str) -> HeaderMap {
        let mut answer = HeaderMap::new();
        Origins::parse(origins).expect("origins").add_headers(Some(&HeaderValue::from_static(origin)), &mut answer);
        answer
    }

    #[test]
    fn only_listed_origins_may_read_and_responses_vary_by_origin() {
        let answer = cors_headers("https://shop.example, http://localhost:3000", "http://localhost:3000");
        assert_eq!(answer["access-control-allow-origin"], "http://localhost:3000");
        assert_eq!(answer["vary"], "Origin");
        let answer = cors_headers("https://shop.example", "https://shop.example.evil.example");
        assert!(!answer.contains_key("access-control-allow-origin"));
        assert_eq!(answer["vary"], "Origin");
    }

    #[test]
    fn any_origin_may_read_and_none_may_send_credentials() {
        let answer = cors_headers("*", "https://anywhere.example");
        assert_eq!(answer["access-control-allow-origin"], "*");
        assert!(!answer.contains_key("access-control-allow-credentials") && !answer.contains_key("vary"));
    }

    #[test]
    fn an_invalid_origin_is_refused() {
        assert!(Origins::parse("https://shop.example/").is_ok());
        for text in
            ["shop.example", "https://shop.example/path", "null", "ftp://shop.example", "https://*.shop.example/x"]
        {
            assert!(Origins::parse(text).is_err(), "{text} was accepted");
        }
    }
}
