//! `/images/{key}`: serves stored renditions and variants to every client that knows the key.
//!
//! A key contains the hash of the bytes, so responses are immutable. Bytes are streamed from storage. This route does
//! not serve uploaded originals.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::{Filter, Reply, reply::Response};

use crate::{
    blobs::{Blob, BlobKey, Blobs},
    catalog::Catalog,
    code::ErrorCode,
    http::{
        admission::Needs,
        endpoint::{Endpoint, Kind, Permission, catalog, handler},
        headers::{
            etag,
            range::{self, Wanted},
        },
        problem::{Problem, ProblemBody},
        reply,
        request::{
            extract::{self, Context},
            method::RequestMethod,
            path,
        },
    },
};

/// `Cache-Control` of immutable content.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Returns the endpoint of stored images.
pub fn endpoints() -> Vec<Endpoint> {
    // A key is the hash of the bytes, so a client cannot guess it.
    let show = Endpoint::new::<__path_show>(Permission::Nothing, |services| {
        let request = path::text("key").and(warp::header::headers_cloned()).and(extract::context());
        handler(request.and(catalog(services)).and(extract::with(&services.state.blobs)).then(show))
    });
    vec![show.works_on(Needs::Files).of_kind(Kind::File)]
}

/// Returns a rendition or variant by its key.
///
/// No token is required.
#[utoipa::path(
    get, path = "/images/{key}", tag = "images", operation_id = "getImage",
    params(
        ("key" = String, Path, description = "The image key, including slashes"),
        ("Range" = Option<String>, Header, description = "A single byte range"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tags that the client has cached; a match returns 304"),
    ),
    responses(
        (status = 200, description = "The image", body = [u8], content_type = "image/*"),
        (status = 206, description = "The requested range", body = [u8], content_type = "image/*"),
        (status = 416, description = "The range is outside the image file", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    key: String,
    request: HeaderMap,
    context: Context,
    catalog: Catalog,
    blobs: Blobs,
) -> Result<Response, Problem> {
    let key = BlobKey::parse(&key).ok_or_else(no_image)?;
    if !catalog.is_public(&key).await? {
        return Err(no_image());
    }
    let found = answer(&key, &request, &context, &blobs, FOR_EVER).await?;
    found.ok_or_else(no_image)
}

/// Streams a blob, whole or in part; `None` if storage does not have it.
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
    // `Range` is defined for `GET` only (RFC 9110, section 14.2).
    let ranges = request.get(header::RANGE).filter(|_| context.method == RequestMethod::Get);
    let asked = ranges.filter(|_| etag::if_range_holds(request, tag.as_bytes()));
    let part = match asked.map_or(Wanted::Whole, |value| range::wanted(value.as_bytes(), whole.size)) {
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
        Wanted::Unsatisfiable => return Err(outside(whole.size)),
    };
    let size = whole.size;
    // Dropping `whole` reads no bytes: its stream starts to read when it is polled.
    let blob = match &part {
        Some(part) => match blobs.open(key, Some(part.clone())).await? {
            Some(blob) => blob,
            None => return Ok(None),
        },
        None => whole,
    };
    let mut response =
        if context.method == RequestMethod::Head { StatusCode::OK.into_response() } else { streamed(blob) };
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

/// Sets an image's headers: media type, entity tag, caching, ranges and security.
fn describe(headers: &mut HeaderMap, key: &BlobKey, tag: &str, caching: HeaderValue) -> Result<(), Problem> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(key.media_type()));
    headers.insert(header::ETAG, HeaderValue::try_from(tag).map_err(Problem::internal)?);
    headers.insert(header::CACHE_CONTROL, caching);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    locked_in(headers);
    Ok(())
}

/// Sets headers against interpreting a stored file as a page or script.
pub(super) fn locked_in(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
}

fn content_range(part: &Range<u64>, size: u64) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("bytes {}-{}/{size}", part.start, part.end - 1)).map_err(Problem::internal)
}

fn no_image() -> Problem {
    Problem::not_found("image file not found")
}

fn outside(size: u64) -> Problem {
    let detail = format!("the requested range is outside the image file, which has {size} bytes");
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeNotSatisfiable, detail);
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

fn streamed(blob: Blob) -> Response {
    reply::stream(blob.stream)
}
