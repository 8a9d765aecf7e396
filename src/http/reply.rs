//! Answers that several resources give.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use warp::Reply as _;

use super::{headers::etag, problem::Problem};
use crate::{
    api::Links,
    catalog::{Body, Freshness},
};

/// What handlers answer with: bytes that are all there.
pub type Ready = Response<Bytes>;

/// An answer's body on its way out: bytes that are all there, or a stream from one of warp's replies.
pub type Outgoing = Either<Full<Bytes>, UnsyncBoxBody<Bytes, warp::Error>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Whether a product came from the cache: `hit` or `miss`.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// A body that comes piece by piece.
pub fn stream<E>(pieces: BoxStream<'static, Result<Bytes, E>>) -> warp::reply::Response
where
    E: std::error::Error + Send + Sync + 'static,
{
    warp::reply::stream(Unshared(Mutex::new(pieces))).into_response()
}

/// warp asks that bodies can be shared between threads, which most streams cannot; nobody ever locks this.
struct Unshared<E>(Mutex<BoxStream<'static, Result<Bytes, E>>>);

impl<E> Stream for Unshared<E> {
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(context)
    }
}

/// `value` as JSON.
///
/// # Errors
/// An internal problem if it cannot be written as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Ready, Problem> {
    let mut response = Response::new(serde_json::to_vec(value).map_err(Problem::internal)?.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    Ok(response)
}

/// A new thing as JSON, with the place where it is found from now on.
///
/// # Errors
/// An internal problem if it cannot be written as JSON, or the place not as a header.
pub fn created<T: Serialize>(value: &T, location: String) -> Result<Ready, Problem> {
    let mut response = json(StatusCode::CREATED, value)?;
    let location = HeaderValue::try_from(location).map_err(Problem::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// That there is nothing any more: 204, without a body.
pub fn gone() -> Ready {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A product's body as the cache holds it, or 304 if the client has it already. Nothing is copied. A 304 names the media type
/// as well, by which the last step of every answer knows what else belongs there.
pub fn product(body: &Body, freshness: Freshness, request: &HeaderMap) -> Ready {
    let unchanged = etag::if_none_match(request, &body.etag);
    let mut response = Response::new(if unchanged { Bytes::new() } else { body.json.clone() });
    let headers = response.headers_mut();
    // The others are the request's id and what browsers are told.
    headers.reserve(8);
    headers.insert(header::CONTENT_TYPE, JSON);
    // The tag is made of ASCII; one that is none would be left out rather than fail the answer.
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

/// `response` with an entity tag: its own, or after a change the tag of what was changed.
///
/// # Errors
/// An internal problem if the tag cannot stand in a header.
pub fn tagged(mut response: Ready, tag: impl Into<Bytes>) -> Result<Ready, Problem> {
    let tag = HeaderValue::from_maybe_shared(tag.into()).map_err(Problem::internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// A product as a change has left it, with its tag.
///
/// # Errors
/// An internal problem if the tag cannot be written as a header.
pub fn changed(body: Body) -> Result<Ready, Problem> {
    let mut response = Response::new(body.json);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    tagged(response, body.etag)
}

/// The `Link` to a list's next page: the same parameters, another cursor.
///
/// # Errors
/// An internal problem if it cannot be written as a header.
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
    fn a_cached_body_is_answered_without_a_copy() {
        let body = body();
        let response = product(&body, Freshness::Hit, &HeaderMap::new());
        assert_eq!(response.status(), 200);
        assert_eq!(response.body().as_ptr(), body.json.as_ptr());
        assert_eq!(response.headers()["etag"], "\"1-3\"");
        assert_eq!(response.headers()["x-cache"], "hit");
    }

    #[test]
    fn a_client_that_has_the_product_gets_no_body() {
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
