//! Filters that extract a request's context, query and JSON body.
//!
//! Bodies have limits on size and time. Filters only extract values; the domain validates them.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::percent_decode;
use warp::{Filter, Rejection};

use super::{method::RequestMethod, params::Params, principal::Principal};
use crate::{
    code::ErrorCode,
    http::{
        admission::request::{Kind, RequestAdmission},
        headers::request_id::RequestId,
        problem::Problem,
    },
};

/// A request's context for handlers, beside path, query and body.
#[derive(Clone, Debug)]
pub struct Context {
    /// The request's id.
    pub request_id: RequestId,
    /// The original method; handlers get a `HEAD` request as `GET`.
    pub method: RequestMethod,
    /// The parameters in the path.
    pub params: Params,
    /// The authenticated principal.
    pub principal: Principal,
    /// The request's permits, updated while a body is read.
    pub admission: Arc<RequestAdmission>,
}

/// Limits on a body's size and on the time to read it.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Maximum size of a body in bytes.
    pub max_bytes: usize,
    /// Timeout for the whole body.
    pub timeout: Duration,
}

/// A query's decoded parameters, in order.
pub type Pairs = Vec<(String, String)>;

/// Returns a filter that provides a clone of `value`.
pub fn with<T>(value: &T) -> impl Filter<Extract = (T,), Error = Infallible> + Clone + use<T>
where
    T: Clone + Send + Sync + 'static,
{
    let value = value.clone();
    warp::any().map(move || value.clone())
}

/// Extracts the request's context from its extensions.
pub fn context() -> impl Filter<Extract = (Context,), Error = Rejection> + Clone {
    warp::ext::get::<Context>()
}

/// Extracts the query's parameters.
///
/// Rejects invalid percent-encoding and invalid UTF-8 with 400.
pub fn query() -> impl Filter<Extract = (Pairs,), Error = Rejection> + Clone {
    let raw = warp::query::raw().or(warp::any().map(String::new)).unify();
    raw.and_then(|raw: String| async move {
        let pairs = query_parameters(&raw);
        pairs.ok_or_else(|| Problem::bad_request("the query is not percent-encoded UTF-8").reject())
    })
}

/// Extracts the bytes of a JSON body.
///
/// Rejects another content type with 415, a body above the size limit with 413, and a slow body with 408.
pub fn json_body(limits: BodyLimits) -> impl Filter<Extract = (Bytes,), Error = Rejection> + Clone {
    body_of(&["application/json"], limits)
}

/// Extracts the bytes of a JSON merge patch.
///
/// Clients may also send it as `application/json`. Rejects the same requests as [`json_body`].
pub fn merge_patch(limits: BodyLimits) -> impl Filter<Extract = (Bytes,), Error = Rejection> + Clone {
    body_of(&["application/merge-patch+json", "application/json"], limits)
}

fn body_of(
    kinds: &'static [&'static str],
    limits: BodyLimits,
) -> impl Filter<Extract = (Bytes,), Error = Rejection> + Clone {
    let parts = warp::header::headers_cloned().and(context()).and(warp::body::stream());
    parts.and_then(move |headers: HeaderMap, context: Context, body| async move {
        let read = read_json(kinds, &headers, body, limits, &context.admission).await;
        read.map_err(Problem::reject)
    })
}

/// Parses a body; a large one on a blocking thread, so that it does not delay other requests.
///
/// # Errors
/// The errors of `parse`, and 500 if it panics on the blocking thread.
pub async fn parsed<T: Send + 'static>(
    body: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    /// Parsing this much takes some tenths of a millisecond.
    const MAX_BYTES_INLINE: usize = 64 << 10;
    if body.len() <= MAX_BYTES_INLINE {
        return parse(&body);
    }
    tokio::task::spawn_blocking(move || parse(&body)).await.map_err(Problem::internal)?
}

/// Decodes a segment of a path.
///
/// # Errors
/// 400 for invalid percent-encoding or invalid UTF-8.
pub fn decode_segment(raw: &str) -> Result<String, Problem> {
    decode(raw.as_bytes(), false).ok_or_else(|| Problem::bad_request("the path is not percent-encoded UTF-8"))
}

pub(in crate::http) async fn read_json<B: Buf, E>(
    kinds: &[&str],
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, E>>,
    limits: BodyLimits,
    admission: &RequestAdmission,
) -> Result<Bytes, Problem> {
    check_headers(kinds, headers, limits)?;
    admission.begins_body(Kind::Gathered).await?;
    let body = pin!(body);
    let bytes = tokio::select! {
        bytes = tokio::time::timeout(limits.timeout, collect(body, limits, admission)) => bytes,
        problem = admission.loses_body() => return Err(problem),
    };
    let bytes = bytes.map_err(|_elapsed| too_slow(limits))??;
    admission.works().await?;
    Ok(without_mark(bytes))
}

/// Removes a leading byte order mark, which a parser may ignore (RFC 8259, section 8.1).
fn without_mark(mut json: Bytes) -> Bytes {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    if json.starts_with(MARK) {
        json.advance(MARK.len());
    }
    json
}

fn check_headers(kinds: &[&str], headers: &HeaderMap, limits: BodyLimits) -> Result<(), Problem> {
    if !is_of_kind(kinds, headers) {
        let kinds: Vec<_> = kinds.iter().map(|kind| format!("`Content-Type: {kind}`")).collect();
        let detail = format!("the body must be sent with {}", kinds.join(" or "));
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::UnsupportedMediaType, detail));
    }
    check_coding(headers)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.max_bytes as u64) {
        return Err(too_large(limits));
    }
    Ok(())
}

/// Checks that the body has no content coding.
///
/// # Errors
/// 415 if a `Content-Encoding` lists a coding other than `identity`.
pub(super) fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter().flat_map(|value| {
        let codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings.filter(|coding| !coding.is_empty())
    });
    if codings.all(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let detail = "the body must not have a `Content-Encoding`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::UnsupportedMediaType, detail))
}

/// Whether the body's media type is one of `kinds`; parameters are ignored.
///
/// Several header lines with different types are accepted if all are of these kinds.
pub(super) fn is_of_kind(kinds: &[&str], headers: &HeaderMap) -> bool {
    let is_kind = |value: &HeaderValue| {
        let essence = value.to_str().ok().and_then(|value| value.split(';').next()).map(str::trim);
        essence.is_some_and(|essence| kinds.iter().any(|kind| essence.eq_ignore_ascii_case(kind)))
    };
    headers.contains_key(header::CONTENT_TYPE) && headers.get_all(header::CONTENT_TYPE).iter().all(is_kind)
}

async fn collect<B: Buf, E>(
    mut body: std::pin::Pin<&mut impl Stream<Item = Result<B, E>>>,
    limits: BodyLimits,
    admission: &RequestAdmission,
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    loop {
        admission.waits_for_body();
        let Some(chunk) = body.next().await else { return Ok(bytes.freeze()) };
        let mut chunk = chunk.map_err(|_| Problem::bad_request("the connection closed before the end of the body"))?;
        if bytes.len() + chunk.remaining() > limits.max_bytes {
            return Err(too_large(limits));
        }
        admission.received(chunk.remaining()).await?;
        while chunk.has_remaining() {
            let length = chunk.chunk().len();
            bytes.extend_from_slice(chunk.chunk());
            chunk.advance(length);
        }
    }
}

fn too_large(limits: BodyLimits) -> Problem {
    let detail = format!("the body exceeds the limit of {} bytes", limits.max_bytes);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BodyTooLarge, detail)
}

fn too_slow(limits: BodyLimits) -> Problem {
    let detail = format!("the body did not arrive within {} seconds", limits.timeout.as_secs_f64());
    Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::DeadlineExceeded, detail)
        .with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// Decodes a URL's query; `None` for invalid percent-encoding or invalid UTF-8.
pub fn query_parameters(raw: &str) -> Option<Pairs> {
    let parts = raw.split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Some((decode(name.as_bytes(), true)?, decode(value.as_bytes(), true)?))
    });
    pairs.collect()
}

/// Decodes percent-encoding, and optionally `+` as a space; `None` for an invalid escape or invalid UTF-8.
fn decode(raw: &[u8], plus_is_space: bool) -> Option<String> {
    // `percent_decode` keeps an invalid escape as it is.
    let is_escape = |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if !raw.split(|&byte| byte == b'%').skip(1).all(is_escape) {
        return None;
    }
    let spaced: Vec<_> = raw.iter().map(|&byte| if byte == b'+' && plus_is_space { b' ' } else { byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    const LIMITS: BodyLimits = BodyLimits { max_bytes: 8, timeout: Duration::from_secs(5) };

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn json_headers() -> HeaderMap {
        headers(&[(header::CONTENT_TYPE, "application/json")])
    }

    fn chunks(parts: &'static [&'static str]) -> impl Stream<Item = Result<&'static [u8], Infallible>> {
        stream::iter(parts.iter().map(|part| Ok(part.as_bytes())))
    }

    async fn status_of(headers: HeaderMap, parts: &'static [&'static str]) -> u16 {
        read_json(&["application/json"], &headers, chunks(parts), LIMITS, &RequestAdmission::for_tests())
            .await
            .expect_err("refused")
            .head()
            .status()
            .as_u16()
    }

    #[tokio::test]
    async fn a_body_in_chunks_is_concatenated() {
        let body = read_json(
            &["application/json"],
            &json_headers(),
            chunks(&["{\"a\"", ":1}"]),
            LIMITS,
            &RequestAdmission::for_tests(),
        )
        .await
        .expect("a body");
        assert_eq!(body, "{\"a\":1}");
    }

    #[test]
    fn a_byte_order_mark_before_json_is_removed() {
        assert_eq!(without_mark(Bytes::from_static(b"\xef\xbb\xbf{}")), "{}");
        assert_eq!(without_mark(Bytes::from_static(b"{}")), "{}");
        assert_eq!(without_mark(Bytes::from_static(b"\xef\xbb")), &b"\xef\xbb"[..]);
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_413_with_or_without_content_length() {
        assert_eq!(status_of(json_headers(), &["12345", "6789"]).await, 413);
        let mut headers = json_headers();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        assert_eq!(status_of(headers, &["123456789"]).await, 413);
    }

    #[tokio::test]
    async fn another_media_type_than_json_is_415() {
        assert_eq!(status_of(HeaderMap::new(), &["{}"]).await, 415);
        for other in ["text/plain", "application/jsonx", "application/x-www-form-urlencoded", ""] {
            assert_eq!(status_of(headers(&[(header::CONTENT_TYPE, other)]), &["{}"]).await, 415, "{other}");
        }
        let mut both = json_headers();
        both.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(status_of(both, &["{}"]).await, 415, "two media types");
        for json in ["Application/JSON", "application/json; charset=utf-8", "application/json;charset=x"] {
            let body = read_json(
                &["application/json"],
                &headers(&[(header::CONTENT_TYPE, json)]),
                chunks(&["{}"]),
                LIMITS,
                &RequestAdmission::for_tests(),
            )
            .await;
            assert!(body.is_ok(), "{json}");
        }
    }

    #[test]
    fn a_content_coding_is_415_in_any_header_line() {
        let coded = |codings: &[&'static str]| {
            let mut headers = json_headers();
            for coding in codings {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            check_coding(&headers).map_or_else(|problem| problem.head().status().as_u16(), |()| 200)
        };
        for codings in [&["gzip"][..], &["identity", "gzip"], &["gzip", "identity"], &["identity, gzip"], &["gzip,"]] {
            assert_eq!(coded(codings), 415, "{codings:?}");
        }
        for codings in [&[][..], &["identity"], &["Identity", "identity"], &["identity , identity"], &[""]] {
            assert_eq!(coded(codings), 200, "{codings:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_408() {
        let endless = chunks(&["{"]).chain(stream::pending());
        let limits = BodyLimits { timeout: Duration::from_millis(1), ..LIMITS };
        let problem =
            read_json(&["application/json"], &json_headers(), endless, limits, &RequestAdmission::for_tests())
                .await
                .expect_err("refused");
        assert_eq!(problem.head().status(), 408);
    }

    #[test]
    fn a_query_is_decoded_like_a_form() {
        let pairs = query_parameters("name=caf%C3%A9+au%20lait&&sort=-id&flag&x=1=2").expect("a query");
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("name", "café au lait"), ("sort", "-id"), ("flag", ""), ("x", "1=2")]);
        assert!(query_parameters("").expect("nothing").is_empty());
    }

    #[test]
    fn invalid_percent_encoding_is_refused() {
        for raw in ["a=%", "a=%4", "a=%zz", "a=%+1", "%FF=1", "a=%C3%28", "a=%ED%A0%80"] {
            assert_eq!(query_parameters(raw), None, "{raw}");
        }
        assert_eq!(decode_segment("a%2Fb+c").expect("a segment"), "a/b+c");
        assert_eq!(decode_segment("%FF").expect_err("refused").head().status(), 400);
    }
}
