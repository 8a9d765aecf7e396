//! Conditional requests (RFC 9110, section 13): evaluates `If-Match`, `If-None-Match` and `If-Range`. No I/O.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use sha2::{Digest as _, Sha256};

use crate::catalog::{Precondition, Tags};

/// Whether `If-None-Match` matches `current`, a strong tag with its quotes.
///
/// Uses weak comparison. Supports lists, weak tags and `*`; several headers form one list.
pub fn if_none_match(headers: &HeaderMap, current: &[u8]) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value.as_bytes(), current))
}

/// Returns the preconditions of a change; `None` without any.
///
/// `If-Match` uses strong comparison, so weak tags match nothing. The tag of a compressed response counts as the tag of
/// the uncompressed one, because both represent the same resource.
pub fn conditions(headers: &HeaderMap) -> Option<Precondition> {
    let condition = Precondition {
        if_match: listed(headers, &header::IF_MATCH, false),
        if_none_match: listed(headers, &header::IF_NONE_MATCH, true),
    };
    (condition != Precondition::default()).then_some(condition)
}

/// Whether a read has an `If-Match` without `current`, in any content coding.
pub fn if_match_fails(headers: &HeaderMap, current: &[u8]) -> bool {
    match listed(headers, &header::IF_MATCH, false) {
        None | Some(Tags::Any) => false,
        Some(Tags::Listed(tags)) => !tags.contains(&decoded(current)),
    }
}

/// Returns an entity tag made from a hash of `bytes`.
pub fn of_bytes(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(bytes)[..8]))
}

/// Returns the tags in the header `name`, without content codings; `None` without the header.
fn listed(headers: &HeaderMap, name: &HeaderName, weak_ones: bool) -> Option<Tags> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if values.is_empty() {
        return None;
    }
    if values.iter().any(|value| value.trim_ascii() == b"*") {
        return Some(Tags::Any);
    }
    let tags = values.into_iter().flat_map(tags).filter(|(weak, _)| weak_ones || !weak).map(|(_, tag)| decoded(tag));
    Some(Tags::Listed(tags.collect()))
}

/// Whether `Range` applies to the representation with the strong tag `current`.
///
/// True without `If-Range`, or if `If-Range` is this tag. A date never matches: responses have no `Last-Modified`.
pub fn if_range_holds(headers: &HeaderMap, current: &[u8]) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes().trim_ascii() == current)
}

/// Returns the tag of the same representation in a content coding; different bytes need a different tag.
pub fn encoded(tag: &[u8], coding: &str) -> Vec<u8> {
    let open = tag.strip_suffix(b"\"").unwrap_or(tag);
    [open, b"-", coding.as_bytes(), b"\""].concat()
}

/// Returns the tag of the uncompressed representation; removes the suffix of the content coding.
fn decoded(tag: &[u8]) -> Vec<u8> {
    let open = tag.strip_suffix(b"-br\"").or_else(|| tag.strip_suffix(b"-gzip\""));
    open.map_or_else(|| tag.to_vec(), |open| [open, b"\""].concat())
}

/// Whether `tag` is the tag of `current` in one of the content codings.
fn is_encoded(tag: &[u8], current: &[u8]) -> bool {
    let Some(open) = current.strip_suffix(b"\"") else { return false };
    tag.strip_prefix(open).is_some_and(|coding| matches!(coding, b"-br\"" | b"-gzip\""))
}

fn names(list: &[u8], current: &[u8]) -> bool {
    list.trim_ascii() == b"*" || tags(list).any(|(_, tag)| tag == current || is_encoded(tag, current))
}

/// Parses a list of tags; yields each tag with its quotes, and whether it is weak.
///
/// A quoted tag may contain commas, so the list is not split at commas. Parsing stops at the first malformed tag.
fn tags(mut list: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let (weak, tag) = list.strip_prefix(b"W/").map_or((false, list), |tag| (true, tag));
        let length = tag.strip_prefix(b"\"")?.iter().position(|byte| *byte == b'"')?;
        let (tag, rest) = tag.split_at(length + 2);
        list = rest;
        Some((weak, tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_str(value).expect("a header's value"));
        }
        if_none_match(&headers, b"\"abc\"")
    }

    #[test]
    fn if_match_accepts_the_tag_of_a_compressed_response() {
        let headers = HeaderMap::from_iter([(
            header::IF_MATCH,
            HeaderValue::from_static("\"1-2-gzip\", \"1-3-br\", W/\"1-4\", \"1-5\""),
        )]);
        let tags = ["\"1-2\"", "\"1-3\"", "\"1-5\""].map(|tag| tag.as_bytes().to_vec());
        let condition = Precondition { if_match: Some(Tags::Listed(tags.to_vec())), if_none_match: None };
        assert_eq!(conditions(&headers), Some(condition));
    }

    #[test]
    fn if_none_match_accepts_lists_weak_tags_and_a_star() {
        for value in [
            "\"abc\"",
            "W/\"abc\"",
            "*",
            " * ",
            "\"x\", \"abc\"",
            "\"x\",W/\"abc\"",
            "\"abc-br\"",
            "W/\"abc-gzip\"",
            "\"a,b\" , \"abc\"",
            ",, \"abc\"",
        ] {
            assert!(matches(&[value]), "{value}");
        }
        assert!(matches(&["\"x\"", "\"abc\""]), "in the second header");
    }

    #[test]
    fn other_tags_and_malformed_tags_do_not_match() {
        for value in ["", "abc", "\"abcd\"", "\"ab\"", "\"abc", "\"x,\"abc\"", "w/\"abc\"", "\"abc-zip\"", "\"*\""] {
            assert!(!matches(&[value]), "{value}");
        }
        assert!(!matches(&[]));
    }

    #[test]
    fn if_range_holds_only_for_the_same_strong_tag() {
        let holds = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::IF_RANGE, HeaderValue::from_static(value))]);
            if_range_holds(&headers, b"\"abc\"")
        };
        assert!(if_range_holds(&HeaderMap::new(), b"\"abc\""));
        assert!(holds("\"abc\""));
        assert!(!holds("W/\"abc\""));
        assert!(!holds("\"x\""));
        assert!(!holds("Sat, 31 Jan 2026 12:00:00 GMT"));
    }

    #[test]
    fn if_match_uses_strong_comparison() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]);
            conditions(&headers).and_then(|condition| condition.if_match)
        };
        assert_eq!(conditions(&HeaderMap::new()), None);
        assert_eq!(read(" * "), Some(Tags::Any));
        let tags = |tags: &[&str]| Some(Tags::Listed(tags.iter().map(|tag| tag.as_bytes().to_vec()).collect()));
        assert_eq!(read("\"a\", W/\"b\", \"c,d\""), tags(&["\"a\"", "\"c,d\""]));
        assert_eq!(read("invalid"), tags(&[]));
    }

    #[test]
    fn if_none_match_of_a_change_uses_weak_comparison() {
        let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("W/\"a-br\", \"b\""))]);
        let tags = vec![b"\"a\"".to_vec(), b"\"b\"".to_vec()];
        assert_eq!(conditions(&headers).and_then(|condition| condition.if_none_match), Some(Tags::Listed(tags)));
    }

    #[test]
    fn if_match_of_a_read_fails_unless_it_lists_the_tag() {
        let fails = |value: &'static str| {
            if_match_fails(
                &HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]),
                b"\"abc-gzip\"",
            )
        };
        assert!(!if_match_fails(&HeaderMap::new(), b"\"abc\""));
        assert!(!fails("*") && !fails("\"abc\"") && !fails("\"abc-br\""));
        assert!(fails("\"abcd\"") && fails("W/\"abc\"") && fails("invalid"));
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_without_a_panic_or_loop(value in "[W/\", a*]{0,40}") {
            let _ = matches(&[&value]);
        }
    }
}
