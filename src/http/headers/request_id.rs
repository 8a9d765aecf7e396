//! Request ids, chosen by the client or generated.
//!
//! The response, every log line and a problem's body contain the id. It is not secret and authenticates nothing.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of the request id, in requests and responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_BYTES: usize = 128;

/// A request's id: 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id in the headers if valid, else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(HEADER) {
            Some(given) if is_fit(given.as_bytes()) => Self(given.clone()),
            _ => Self::make(),
        }
    }

    /// Generates an id: a version 7 UUID, so that ids sort by time.
    ///
    /// The random part comes from a fast generator without a system call: ids must be unique, not unpredictable.
    pub fn make() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut random = [0; 10];
        fastrand::fill(&mut random);
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = uuid.as_hyphenated().encode_lower(&mut text);
        Self(HeaderValue::from_str(text).expect("a UUID is visible ASCII"))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("an id is visible ASCII")
    }

    /// Returns the id as a header value.
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_fit(id: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(given).expect("a header's value"));
        RequestId::of(&headers).to_string()
    }

    #[test]
    fn a_valid_request_id_is_kept() {
        let longest = "x".repeat(128);
        for id in ["a", "0f/zz:{~}!", longest.as_str()] {
            assert_eq!(id_for(id.as_bytes()), id);
        }
    }

    #[test]
    fn an_invalid_request_id_is_replaced_by_a_uuid_v7() {
        let too_long = "x".repeat(129);
        for id in ["", "two words", "tab\there", "ümlaut", too_long.as_str()] {
            let made = id_for(id.as_bytes());
            assert_eq!(uuid::Uuid::parse_str(&made).expect("a UUID").get_version_num(), 7, "{id}");
        }
    }

    #[test]
    fn generated_ids_are_unique() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| RequestId::make().to_string()).collect();
        assert_eq!(ids.len(), 1_000);
    }
}
