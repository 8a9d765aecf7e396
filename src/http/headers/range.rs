//! Byte ranges: parses the `Range` header (RFC 9110, section 14). No I/O.

use std::ops::Range;

/// The part of a file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file: the header is absent, malformed, or has several ranges.
    Whole,
    /// These bytes; never empty, always within the file.
    Part(Range<u64>),
    /// None: the range is outside the file.
    Unsatisfiable,
}

/// Parses a `Range` header for a file of `size` bytes.
pub fn wanted(header: &[u8], size: u64) -> Wanted {
    let Some((first, last)) = single_range(header) else { return Wanted::Whole };
    let range = match (first, last) {
        (Some(first), Some(last)) if first > last => return Wanted::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) => first..size,
        (None, Some(suffix)) => size.saturating_sub(suffix)..size,
        (None, None) => return Wanted::Whole,
    };
    if range.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(range) }
}

/// Parses `bytes=first-last`; either number may be omitted.
fn single_range(header: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, set) = std::str::from_utf8(header).ok()?.trim().split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    Some((number(first)?, number(last)?))
}

/// Parses an optional number; `None` for malformed text. A number above `u64::MAX` saturates.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_single_range_is_limited_to_the_file() {
        for (header, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=10-", 10..100),
            ("bytes=10-1000", 10..100),
            ("bytes=99-99999999999999999999999", 99..100),
            ("bytes=-10", 90..100),
            ("bytes=-1000", 0..100),
            ("BYTES=5-6", 5..7),
            (" bytes= 5-6 ", 5..7),
        ] {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Part(part), "{header}");
        }
    }

    #[test]
    fn a_range_outside_the_file_is_unsatisfiable() {
        for header in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Unsatisfiable, "{header}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn a_malformed_or_multiple_range_means_the_whole_file() {
        for header in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=+1-2", "items=0-1", "bytes=0-1,5-6"]
        {
            assert_eq!(wanted(header.as_bytes(), 100), Wanted::Whole, "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_within_the_file(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Wanted::Part(part) = wanted(header.as_bytes(), size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
