//! `/images/{key}`: stored renditions and variants, for everybody who has the key. Keys are made from the bytes, so an answer
//! holds for ever; bytes are streamed from the store and never gathered here. Uploaded originals are not served here.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::{Filter, Reply, filters::BoxedFilter, path::Tail, reply::Response};

use crate::{
    blobs::{Blob, BlobKey, Blobs},
    catalog::Catalog,
    code::ErrorCode,
    http::{
        State,
        headers::{
            etag,
            range::{self, Wanted},
        },
        problem::{Problem, ProblemBody},
        reply,
        request::extract::{self, Context},
        route::Verb,
    },
};

/// What is found by a key made from its bytes never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The route of stored pictures.
pub fn routes(state: &State) -> BoxedFilter<(Response,)> {
    let parts = warp::path("images").and(warp::path::tail()).and(warp::get()).and(warp::header::headers_cloned());
    let parts = parts.and(extract::context()).and(extract::with(&state.catalog)).and(extract::with(&state.blobs));
    extract::boxed(parts.then(show))
}

/// A rendition by its key, which its product shows. No token is needed.
#[utoipa::path(
    get, path = "/images/{key}", tag = "pictures", operation_id = "getImage",
    params(
        ("key" = String, Path, description = "Its key, slashes and all"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags of what the client has"),
    ),
    responses(
        (status = 200, description = "The picture", body = [u8], content_type = "image/*"),
        (status = 206, description = "A part of it", body = [u8], content_type = "image/*"),
        (status = 416, description = "It has no byte in the range", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    key: Tail,
    request: HeaderMap,
    context: Context,
    catalog: Catalog,
    blobs: Blobs,
) -> Result<Response, Problem> {
    let key = BlobKey::parse(key.as_str()).ok_or_else(no_picture)?;
    if !catalog.is_public(&key).await? {
        return Err(no_picture());
    }
    let found = answer(&key, &request, &context, &blobs, FOR_EVER).await?;
    found.ok_or_else(no_picture)
}

/// A blob as an answer, whole or in part, streamed; `None` if it is not in the store.
pub(in crate::http) async fn answer(
    key: &BlobKey,
    request: &HeaderMap,
    context: &Context,
    blobs: &Blobs,
    caching: HeaderValue,
) -> Result<Option<Response>, Problem> {
    let found = find(key, request, context, blobs, caching).await?;
    if found.is_none() {
        blobs.ensure_there().await?;
    }
    Ok(found)
}

async fn find(
    key: &BlobKey,
    request: &HeaderMap,
    context: &Context,
    blobs: &Blobs,
    caching: HeaderValue,
) -> Result<Option<Response>, Problem> {
    let tag = format!("\"{}\"", key.sha256());
    if etag::if_none_match(request, tag.as_bytes()) {
        return if blobs.exists(key).await? { unchanged(key, &tag, caching).map(Some) } else { Ok(None) };
    }
    let Some(whole) = blobs.open(key, None).await? else { return Ok(None) };
    // `Range` means something for `GET` alone (RFC 9110, section 14.2).
    let ranges = request.get(header::RANGE).filter(|_| context.verb == Verb::Get);
    let asked = ranges.filter(|_| etag::if_range_holds(request, tag.as_bytes()));
    let part = match asked.map_or(Wanted::Whole, |value| range::wanted(value.as_bytes(), whole.size)) {
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
        Wanted::Unsatisfiable => return Err(outside(whole.size)),
    };
    let size = whole.size;
    // The whole blob's bytes were not asked for yet: the stream begins to read when it is polled.
    let blob = match &part {
        Some(part) => match blobs.open(key, Some(part.clone())).await? {
            Some(blob) => blob,
            None => return Ok(None),
        },
        None => whole,
    };
    let mut response = if context.verb == Verb::Head { StatusCode::OK.into_response() } else { streamed(blob) };
    describe(response.headers_mut(), key, &tag, caching)?;
    let length = part.as_ref().map_or(size, |part| part.end - part.start);
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if let Some(part) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(header::CONTENT_RANGE, content_range(&part, size)?);
    }
    Ok(Some(response))
}

fn unchanged(key: &BlobKey, tag: &str, caching: HeaderValue) -> Result<Response, Problem> {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    describe(response.headers_mut(), key, tag, caching)?;
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// The headers that say what a picture is, and that nothing else may be made of it.
fn describe(headers: &mut HeaderMap, key: &BlobKey, tag: &str, caching: HeaderValue) -> Result<(), Problem> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(key.media_type()));
    headers.insert(header::ETAG, HeaderValue::try_from(tag).map_err(Problem::internal)?);
    headers.insert(header::CACHE_CONTROL, caching);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    locked_in(headers);
    Ok(())
}

/// A stored file is a picture and nothing else: it runs no script and is no page, whatever stands in it.
pub(super) fn locked_in(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
}

fn content_range(part: &Range<u64>, size: u64) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("bytes {}-{}/{size}", part.start, part.end - 1)).map_err(Problem::internal)
}

fn no_picture() -> Problem {
    Problem::not_found("there is no such picture")
}

fn outside(size: u64) -> Problem {
    let detail = format!("the picture has {size} bytes, none of them in this range");
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeNotSatisfiable, detail);
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

fn streamed(blob: Blob) -> Response {
    reply::stream(blob.stream)
}
