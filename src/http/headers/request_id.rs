//! The name of a request: the client's own, or one that is made. It stands in the answer, in every log line and in a
//! problem's body; it is no secret and proves nothing.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it, in requests and in answers.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MOST_BYTES: usize = 128;

/// A request's id: 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id that a request bears if it is fit for a log line, else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(HEADER) {
            Some(given) if is_fit(given.as_bytes()) => Self(given.clone()),
            _ => Self::make(),
        }
    }

    /// A new id: a version 7 UUID, so that ids sort by time.
    ///
    /// Its random part comes from a fast generator without a system call: ids must differ, nobody must fail to guess them.
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

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("only visible ASCII is taken")
    }

    /// The id as a header's value.
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
    (1..=MOST_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
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
    fn a_fit_id_is_kept() {
        let longest = "x".repeat(128);
        for id in ["a", "0f/zz:{~}!", longest.as_str()] {
            assert_eq!(id_for(id.as_bytes()), id);
        }
    }

    #[test]
    fn an_unfit_id_is_replaced_by_a_made_one() {
        let too_long = "x".repeat(129);
        for id in ["", "two words", "tab\there", "ümlaut", too_long.as_str()] {
            let made = id_for(id.as_bytes());
            assert_eq!(uuid::Uuid::parse_str(&made).expect("a UUID").get_version_num(), 7, "{id}");
        }
    }

    #[test]
    fn made_ids_differ() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| RequestId::make().to_string()).collect();
        assert_eq!(ids.len(), 1_000);
    }
}
