//! Response encoding for text: entity tags, 304, and compression with Brotli or gzip.
//!
//! Compressed bodies are cached by entity tag, so that a frequently read body is compressed once.

use std::{io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Body as _;
use moka::sync::Cache;

use crate::http::{
    admission::RequestAdmission,
    headers::{etag, negotiate},
    reply::Outgoing,
};

/// Tags and compresses responses; shared by all connections.
pub struct ResponseEncoder {
    compressed_bodies: Cache<(Bytes, &'static str), Bytes>,
}

/// A request's headers that affect response encoding.
pub struct ClientPreferences {
    coding: Option<&'static str>,
    /// `If-Match` and `If-None-Match` of a safe request.
    conditions: HeaderMap,
}

/// The permits of the request, which blocking work holds to its end.
type Permits = Option<Arc<RequestAdmission>>;

/// Supported content codings, in order of preference.
const CODINGS: [&str; 2] = ["br", "gzip"];
/// Smaller bodies are not compressed: they fit one packet.
const WORTH_IT_BYTES: usize = 1_024;
/// Larger bodies are streamed without a tag or compression.
const MAX_BYTES: u64 = 8 << 20;
/// Smaller bodies are compressed inline: switching threads would take longer.
const INLINE_BYTES: usize = 16 << 10;
/// Smaller bodies are hashed inline.
const MAX_BYTES_HASHED_INLINE: usize = 64 << 10;
const COMPRESSED_CACHE_BYTES: u64 = 32 << 20;
/// Idle time before a compressed body is evicted: most lists and searches are requested once.
const COMPRESSED_CACHE_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

impl ClientPreferences {
    /// Reads the preferences of `request`.
    pub fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let coding = negotiate::content_coding(headers, &CODINGS);
        let mut conditions = HeaderMap::new();
        if request.method().is_safe() {
            for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
                for value in headers.get_all(&name) {
                    conditions.append(&name, value.clone());
                }
            }
        }
        let coding = CODINGS.into_iter().find(|known| coding == Some(known));
        Self { coding, conditions }
    }

    /// Whether the request's `If-Match` does not match the entity tag of `response`.
    pub fn refuse<B>(&self, response: &Response<B>) -> bool {
        let is_representation =
            matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        let tag = response.headers().get(header::ETAG).filter(|_| is_representation);
        tag.is_some_and(|tag| etag::if_match_fails(&self.conditions, tag.as_bytes()))
    }
}

impl ResponseEncoder {
    /// Creates an encoder with an empty cache.
    pub fn new() -> Self {
        let weight = |(tag, _): &(Bytes, &str), body: &Bytes| u32::try_from(tag.len() + body.len()).unwrap_or(u32::MAX);
        let compressed_bodies =
            Cache::builder().max_capacity(COMPRESSED_CACHE_BYTES).time_to_idle(COMPRESSED_CACHE_IDLE_TIMEOUT);
        Self { compressed_bodies: compressed_bodies.weigher(weight).build() }
    }

    /// Tags and compresses a text response, or converts it to 304; `reads` is true for `GET` and `HEAD`.
    pub async fn finish(
        &self,
        preferences: &ClientPreferences,
        reads: bool,
        mut response: Response<Outgoing>,
    ) -> Response<Outgoing> {
        if !is_text(response.headers()) || response.headers().contains_key(header::CONTENT_ENCODING) {
            return response;
        }
        // A 304 has the headers that the 200 would have had (RFC 9110, section 15.4.5).
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if response.status() == StatusCode::NOT_MODIFIED {
            return not_modified(response.into_parts().0);
        }
        let size = response.body().size_hint().exact().unwrap_or(u64::MAX);
        let may_be_kept = reads && response.status() == StatusCode::OK && may_be_kept(response.headers());
        let given = response.headers().get(header::ETAG);
        if may_be_kept && given.is_some_and(|tag| etag::if_none_match(&preferences.conditions, tag.as_bytes())) {
            return not_modified(response.into_parts().0);
        }
        let tags = may_be_kept && given.is_none();
        let compresses = preferences.coding.is_some() && size >= WORTH_IT_BYTES as u64;
        if size > MAX_BYTES || !(tags || compresses) {
            return response;
        }
        let (mut head, body) = response.into_parts();
        let permits = head.extensions.get().cloned();
        let Some(bytes) = all_of(body).await else {
            // The body is in memory, so reading it does not fail.
            return Response::from_parts(head, Either::Left(Full::default()));
        };
        if tags {
            let tag = tag_of(bytes.clone(), permits.clone()).await;
            let known = etag::if_none_match(&preferences.conditions, tag.as_bytes());
            if let Ok(tag) = HeaderValue::try_from(tag) {
                head.headers.insert(header::ETAG, tag);
            }
            if known {
                return not_modified(head);
            }
        }
        let body = match preferences.coding.filter(|_| compresses) {
            Some(coding) => self.compressed(&mut head.headers, coding, bytes, (reads, permits)).await,
            None => bytes,
        };
        Response::from_parts(head, Either::Left(Full::new(body)))
    }

    /// Compresses `bytes` and sets the headers; returns them unchanged if compression does not make them shorter.
    ///
    /// Caches only responses to reads: the tag of another response is that of the changed resource, not of its bytes.
    async fn compressed(
        &self,
        headers: &mut HeaderMap,
        coding: &'static str,
        bytes: Bytes,
        (reads, permits): (bool, Permits),
    ) -> Bytes {
        let tag = headers.get(header::ETAG).map(|tag| Bytes::copy_from_slice(tag.as_bytes()));
        let key = tag.clone().filter(|_| reads).map(|tag| (tag, coding));
        let packed = match key.as_ref().and_then(|key| self.compressed_bodies.get(key)) {
            Some(packed) => packed,
            None => {
                let packed = compress_aside(coding, bytes.clone(), permits).await;
                if let Some(key) = key {
                    self.compressed_bodies.insert(key, packed.clone());
                }
                packed
            }
        };
        if packed.len() >= bytes.len() {
            return bytes;
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        headers.remove(header::CONTENT_LENGTH);
        if let Some(tag) = tag
            && let Ok(tag) = HeaderValue::from_bytes(&etag::encoded(&tag, coding))
        {
            headers.insert(header::ETAG, tag);
        }
        packed
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let text = kind.starts_with("text/") && kind != "text/event-stream";
    text || matches!(kind, "application/json" | "application/problem+json" | "application/javascript" | "image/svg+xml")
}

fn may_be_kept(headers: &HeaderMap) -> bool {
    headers.get(header::CACHE_CONTROL).is_none_or(|value| value.as_bytes() != b"no-store")
}

/// Returns 304 with the headers of the 200 response.
fn not_modified(mut head: http::response::Parts) -> Response<Outgoing> {
    head.status = StatusCode::NOT_MODIFIED;
    head.headers.remove(header::CONTENT_TYPE);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Either::Left(Full::default()))
}

async fn all_of(body: Outgoing) -> Option<Bytes> {
    Some(body.collect().await.ok()?.to_bytes())
}

/// Returns the entity tag of `bytes`.
async fn tag_of(bytes: Bytes, permits: Permits) -> String {
    if bytes.len() <= MAX_BYTES_HASHED_INLINE {
        return etag::of_bytes(&bytes);
    }
    let again = bytes.clone();
    let hash = move || {
        let _permits = permits;
        etag::of_bytes(&bytes)
    };
    tokio::task::spawn_blocking(hash).await.unwrap_or_else(|_| etag::of_bytes(&again))
}

async fn compress_aside(coding: &'static str, bytes: Bytes, permits: Permits) -> Bytes {
    if bytes.len() <= INLINE_BYTES {
        return compress(coding, &bytes);
    }
    let plain = bytes.clone();
    let compress = move || {
        let _permits = permits;
        compress(coding, &bytes)
    };
    tokio::task::spawn_blocking(compress).await.unwrap_or(plain)
}

/// Compresses `bytes`; the level balances CPU time and transfer time.
fn compress(coding: &str, bytes: &[u8]) -> Bytes {
    const BROTLI: (u32, u32) = (4, 20);
    let mut packed = Vec::with_capacity(bytes.len() / 3);
    // Writing to memory does not fail.
    let written = if coding == "br" {
        let mut writer = brotli::CompressorWriter::new(&mut packed, 4_096, BROTLI.0, BROTLI.1);
        writer.write_all(bytes).and_then(|()| writer.flush())
    } else {
        let mut writer = GzEncoder::new(&mut packed, Compression::new(5));
        writer.write_all(bytes).and_then(|()| writer.try_finish())
    };
    if written.is_ok() { packed.into() } else { Bytes::copy_from_slice(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn preferences(headers: &[(header::HeaderName, &'static str)]) -> ClientPreferences {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        ClientPreferences::of(&request)
    }

    fn answer(text: &str) -> Response<Outgoing> {
        let mut response = Response::new(Either::Left(Full::new(Bytes::copy_from_slice(text.as_bytes()))));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn sent(response: Response<Outgoing>) -> (http::response::Parts, Bytes) {
        let (head, body) = response.into_parts();
        (head, all_of(body).await.expect("a body"))
    }

    #[tokio::test]
    async fn a_body_is_compressed_once_and_decompresses_correctly() {
        let text = format!("[{}]", "\"the same again\",".repeat(500));
        let encoder = ResponseEncoder::new();
        for (accept, coding) in [("gzip, br", "br"), ("gzip", "gzip")] {
            let preferences = preferences(&[(header::ACCEPT_ENCODING, accept)]);
            let (head, first) = sent(encoder.finish(&preferences, true, answer(&text)).await).await;
            let (_, second) = sent(encoder.finish(&preferences, true, answer(&text)).await).await;
            assert_eq!(head.headers[header::CONTENT_ENCODING], coding);
            assert_eq!(head.headers[header::VARY], "Accept-Encoding");
            assert_eq!(first.as_ptr(), second.as_ptr(), "the second one came from the cache");
            let mut plain = String::new();
            match coding {
                "br" => brotli::Decompressor::new(&first[..], 4_096).read_to_string(&mut plain),
                _ => flate2::read::GzDecoder::new(&first[..]).read_to_string(&mut plain),
            }
            .expect("it decompresses");
            assert_eq!(plain, text);
        }
    }

    #[tokio::test]
    async fn conditional_get_returns_304_for_any_content_coding() {
        let text = "x".repeat(5_000);
        let encoder = ResponseEncoder::new();
        let gzip = preferences(&[(header::ACCEPT_ENCODING, "gzip")]);
        let (head, _) = sent(encoder.finish(&gzip, true, answer(&text)).await).await;
        let tag: &'static str = head.headers[header::ETAG].to_str().expect("ASCII").to_owned().leak();
        assert!(tag.ends_with("-gzip\""), "{tag}");
        for accept in ["gzip", "identity"] {
            let preferences = preferences(&[(header::ACCEPT_ENCODING, accept), (header::IF_NONE_MATCH, tag)]);
            let (head, body) = sent(encoder.finish(&preferences, true, answer(&text)).await).await;
            assert_eq!((head.status, body.len()), (StatusCode::NOT_MODIFIED, 0));
            assert_eq!(head.headers[header::VARY], "Accept-Encoding");
            let (head, _) = sent(encoder.finish(&preferences, true, answer("another")).await).await;
            assert_eq!(head.status, StatusCode::OK);
        }
    }

    #[tokio::test]
    async fn the_response_to_a_change_is_not_cached_for_reads() {
        let encoder = ResponseEncoder::new();
        let gzip = preferences(&[(header::ACCEPT_ENCODING, "gzip")]);
        let tagged = |text: &str| {
            let mut answer = answer(text);
            answer.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"a.b\""));
            answer
        };
        let (head, accepted) = sent(encoder.finish(&gzip, false, tagged(&"x".repeat(5_000))).await).await;
        assert_eq!(head.headers[header::CONTENT_ENCODING], "gzip");
        let (_, read) = sent(encoder.finish(&gzip, true, tagged(&"y".repeat(5_000))).await).await;
        assert_ne!(accepted, read);
    }

    #[tokio::test]
    async fn short_uncacheable_and_binary_bodies_are_not_encoded() {
        let encoder = ResponseEncoder::new();
        let preferences = preferences(&[(header::ACCEPT_ENCODING, "gzip")]);
        let (head, _) = sent(encoder.finish(&preferences, true, answer("{}")).await).await;
        assert!(!head.headers.contains_key(header::CONTENT_ENCODING) && head.headers.contains_key(header::ETAG));
        let mut fresh = answer("{}");
        fresh.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let (head, _) = sent(encoder.finish(&preferences, true, fresh).await).await;
        assert!(!head.headers.contains_key(header::ETAG));
        let mut image = answer(&"x".repeat(5_000));
        image.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
        let (head, body) = sent(encoder.finish(&preferences, true, image).await).await;
        assert!(!head.headers.contains_key(header::VARY) && body.len() == 5_000);
    }
}
