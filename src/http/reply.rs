//! Responses that several resources share.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full, combinators::UnsyncBoxBody};
use parking_lot::Mutex;
use serde::Serialize;
use warp::Reply as _;

use super::{headers::etag, problem::Problem};
use crate::{
    api::Links,
    catalog::{Body, Freshness},
};

/// A handler's response with its body in memory.
pub type Ready = Response<Bytes>;

/// A response body: bytes in memory, or a stream from a warp reply.
pub type Outgoing = Either<Full<Bytes>, UnsyncBoxBody<Bytes, warp::Error>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Tells whether a product came from the cache: `hit` or `miss`.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Returns a streamed response.
pub fn stream<E>(pieces: BoxStream<'static, Result<Bytes, E>>) -> warp::reply::Response
where
    E: std::error::Error + Send + Sync + 'static,
{
    warp::reply::stream(Unshared(Mutex::new(pieces))).into_response()
}

/// Makes a stream `Sync`, as warp requires of bodies. The mutex is never locked.
struct Unshared<E>(Mutex<BoxStream<'static, Result<Bytes, E>>>);

impl<E> Stream for Unshared<E> {
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().as_mut().poll_next(context)
    }
}

/// Returns `value` as JSON.
///
/// # Errors
/// 500 if `value` cannot be serialized.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Ready, Problem> {
    let mut response = Response::new(serde_json::to_vec(value).map_err(Problem::internal)?.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    Ok(response)
}

/// Builds a response of about this many bytes; a large one on a blocking thread, so that it does not delay other
/// requests.
///
/// # Errors
/// The errors of `make`, and 500 if it panics on the blocking thread.
pub async fn build<T: Send + 'static>(
    bytes: usize,
    make: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    /// Serializing this much takes some tenths of a millisecond.
    const MAX_BYTES_INLINE: usize = 64 << 10;
    if bytes <= MAX_BYTES_INLINE {
        return make();
    }
    tokio::task::spawn_blocking(make).await.map_err(Problem::internal)?
}

/// Returns 201 with a new resource as JSON and its URL in `Location`.
///
/// # Errors
/// 500 if `value` cannot be serialized, or `location` is not a valid header value.
pub fn created<T: Serialize>(value: &T, location: String) -> Result<Ready, Problem> {
    let mut response = json(StatusCode::CREATED, value)?;
    let location = HeaderValue::try_from(location).map_err(Problem::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Returns 204 without a body.
pub fn gone() -> Ready {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Returns a product's cached body without copying it, or 304.
///
/// The 304 has a `Content-Type` too: `ResponseEncoder` uses it to decide which headers to add.
pub fn product(body: &Body, freshness: Freshness, request: &HeaderMap) -> Ready {
    let unchanged = etag::if_none_match(request, &body.etag);
    let mut response = Response::new(if unchanged { Bytes::new() } else { body.json.clone() });
    let headers = response.headers_mut();
    // Leaves capacity for the request id and the security headers.
    headers.reserve(8);
    headers.insert(header::CONTENT_TYPE, JSON);
    // The tag is ASCII. An invalid one is omitted, so that the response does not fail.
    if let Ok(etag) = HeaderValue::from_maybe_shared(body.etag.clone()) {
        headers.insert(header::ETAG, etag);
    }
    let cache = match freshness {
        Freshness::Hit => HeaderValue::from_static("hit"),
        Freshness::Miss => HeaderValue::from_static("miss"),
    };
    headers.insert(X_CACHE, cache);
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response
}

/// Sets the entity tag: that of the body, or after a change that of the changed resource.
///
/// # Errors
/// 500 if the tag is not a valid header value.
pub fn tagged(mut response: Ready, tag: impl Into<Bytes>) -> Result<Ready, Problem> {
    let tag = HeaderValue::from_maybe_shared(tag.into()).map_err(Problem::internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// Returns a changed product with its entity tag.
///
/// # Errors
/// 500 if the tag is not a valid header value.
pub fn changed(body: Body) -> Result<Ready, Problem> {
    let mut response = Response::new(body.json);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    tagged(response, body.etag)
}

/// Returns the `Link` to a list's next page: the same parameters with another cursor.
///
/// # Errors
/// 500 if the link is not a valid header value.
pub fn next_page(links: &Links, path: &str, pairs: &[(String, String)], cursor: &str) -> Result<HeaderValue, Problem> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", cursor);
    HeaderValue::try_from(format!("<{}>; rel=\"next\"", links.list(path, &query.finish()))).map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        Body { json: Bytes::from_static(b"{\"id\":1}"), etag: Bytes::from_static(b"\"1-3\"") }
    }

    #[test]
    fn a_cached_body_is_returned_without_a_copy() {
        let body = body();
        let response = product(&body, Freshness::Hit, &HeaderMap::new());
        assert_eq!(response.status(), 200);
        assert_eq!(response.body().as_ptr(), body.json.as_ptr());
        assert_eq!(response.headers()["etag"], "\"1-3\"");
        assert_eq!(response.headers()["x-cache"], "hit");
    }

    #[test]
    fn a_matching_if_none_match_returns_304_without_a_body() {
        let request = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("W/\"1-3\""))]);
        let response = product(&body(), Freshness::Miss, &request);
        assert_eq!(response.status(), 304);
        assert!(response.body().is_empty());
        assert_eq!(response.headers()["etag"], "\"1-3\"");
    }

    #[test]
    fn the_next_page_keeps_the_parameters_and_replaces_the_cursor() {
        let pairs = [("name", "café & co"), ("cursor", "old"), ("limit", "5")].map(|(n, v)| (n.into(), v.into()));
        let link = next_page(&Links::default(), "/products", &pairs, "n-w_").expect("a link");
        assert_eq!(link, "</products?name=caf%C3%A9+%26+co&limit=5&cursor=n-w_>; rel=\"next\"");
    }
}
