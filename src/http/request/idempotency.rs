//! The header `Idempotency-Key`: the server executes a request with a key once and replays its response.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{extract, fingerprint, principal::Principal};
use crate::{
    catalog::{Answer, Done, Once},
    domain::Invalid,
    http::{problem::Problem, reply::Ready},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Maximum length of a key in characters.
const MAX_CHARS: usize = 255;

/// Returns the request's idempotency key and fingerprint; `None` without a key.
///
/// Handlers validate the body first, so that an invalid body costs no fingerprint.
///
/// # Errors
/// 422 for a key that is empty, too long, repeated, or not visible ASCII.
pub async fn once(
    headers: &HeaderMap,
    principal: &Principal,
    path: &str,
    body: &Bytes,
) -> Result<Option<Once>, Problem> {
    let Some(key) = key(headers)? else { return Ok(None) };
    let body = extract::parsed(body.clone(), |json| Ok(fingerprint::of(json))).await?;
    let fingerprint = Sha256::new().chain_update(path).chain_update([0]).chain_update(body).finalize();
    Ok(Some(Once {
        // With authentication off, all clients share one scope.
        scope: principal.user().map(ToString::to_string).unwrap_or_default(),
        key,
        fingerprint: hex::encode(fingerprint),
    }))
}

/// Whether the request has a key.
pub fn has_key(headers: &HeaderMap) -> bool {
    headers.contains_key(KEY)
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let bytes = key.as_bytes();
    let visible = bytes.iter().all(u8::is_ascii_graphic);
    if keys.next().is_some() || bytes.is_empty() || bytes.len() > MAX_CHARS || !visible {
        let message = format!("must be a single key of 1 to {MAX_CHARS} visible ASCII characters");
        return Err(Invalid::field("Idempotency-Key", message).into());
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

/// Converts a new or replayed answer to a response.
///
/// # Errors
/// 500 if the stored status or location is invalid.
pub fn reply(answer: Answer) -> Result<Ready, Problem> {
    let mut response = http::Response::new(answer.body);
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(Problem::internal)?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(location) = answer.location {
        headers.insert(header::LOCATION, HeaderValue::try_from(location).map_err(Problem::internal)?);
    }
    Ok(marked(response, answer.replayed))
}

/// Builds the response with `show`, and marks it if it is a replay.
///
/// # Errors
/// The errors of `show`.
pub fn reply_of<T>(done: Done<T>, show: impl FnOnce(T) -> Result<Ready, Problem>) -> Result<Ready, Problem> {
    Ok(marked(show(done.value)?, done.replayed))
}

/// Adds `Idempotency-Replayed: true` to a replayed response.
pub fn marked(mut response: Ready, replayed: bool) -> Ready {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(keys: &[&str]) -> Result<Option<Once>, Problem> {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(KEY, HeaderValue::from_str(key).expect("a header's value"));
        }
        once(&headers, &Principal::AuthenticationDisabled, "/products", &Bytes::from_static(b"{}")).await
    }

    #[tokio::test]
    async fn a_key_is_1_to_255_visible_ascii_characters() {
        assert_eq!(read(&[]).await.expect("right"), None);
        assert_eq!(read(&["\"a-1\""]).await.expect("right").expect("a key").key, "\"a-1\"");
        let longest = "k".repeat(255);
        assert!(read(&[&longest]).await.is_ok());
        for wrong in [&[""][..], &["a b"], &["é"], &["a", "a"], &["k".repeat(256).as_str()]] {
            assert_eq!(read(wrong).await.expect_err("refused").head().status(), 422, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn another_path_or_body_has_another_fingerprint() {
        let headers = HeaderMap::from_iter([(KEY, HeaderValue::from_static("k"))]);
        let of = async |path: &str, body: &'static str| {
            let once = once(&headers, &Principal::AuthenticationDisabled, path, &Bytes::from(body)).await;
            once.expect("right").expect("a key").fingerprint
        };
        assert_eq!(of("/a", "{}").await, of("/a", " { }").await);
        assert_ne!(of("/a", "b").await, of("/ab", "").await);
        assert_ne!(of("/a", "1").await, of("/a", "2").await);
    }
}
