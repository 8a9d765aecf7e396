//! Content negotiation by `Accept` and `Accept-Encoding` (RFC 9110, section 12). No I/O.

use http::{HeaderMap, HeaderName, header};

/// An entry of a list such as `image/webp;q=0.8`.
struct Liked<'a> {
    name: &'a str,
    /// 0 to 1,000.
    weight: u16,
}

/// Returns the index of the preferred media type in `offered`; `None` if the client accepts none.
///
/// `offered` is in order of preference, `image/avif` before `image/jpeg`. A client that sends only `*/*` gets a widely
/// supported format (`safe`) first.
pub fn media_type(headers: &HeaderMap, offered: &[&str], safe: impl Fn(&str) -> bool) -> Option<usize> {
    let accepted = liked(headers, &header::ACCEPT);
    if accepted.is_empty() {
        return offered.iter().position(|kind| safe(kind)).or(if offered.is_empty() { None } else { Some(0) });
    }
    let ranked = offered.iter().enumerate().filter_map(|(place, kind)| {
        let (weight, named) = weight_of(&accepted, kind)?;
        let rank = if named { 2 } else { u8::from(safe(kind)) };
        (weight > 0).then_some((weight, rank, std::cmp::Reverse(place)))
    });
    ranked.max().map(|(_, _, place)| place.0)
}

/// Returns a media type's weight and whether the client listed it exactly.
///
/// The most specific entry applies.
fn weight_of(accepted: &[Liked<'_>], kind: &str) -> Option<(u16, bool)> {
    let find = |name: &str| accepted.iter().find(|liked| liked.name.eq_ignore_ascii_case(name));
    if let Some(liked) = find(kind) {
        return Some((liked.weight, true));
    }
    let family = kind.split_once('/').map_or(kind, |(family, _)| family);
    let liked = find(&format!("{family}/*")).or_else(|| find("*/*"))?;
    Some((liked.weight, false))
}

/// Returns the preferred content coding in `offered`, the first among equal weights.
///
/// Returns `None` if the client prefers `identity` or accepts no offered coding.
pub fn content_coding<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Option<&'a str> {
    let accepted = liked(headers, &header::ACCEPT_ENCODING);
    let weight = |coding: &str| {
        let find = |name: &str| accepted.iter().find(|liked| liked.name.eq_ignore_ascii_case(name));
        find(coding).or_else(|| find("*")).map(|liked| liked.weight)
    };
    let plain = accepted.iter().find(|liked| liked.name.eq_ignore_ascii_case("identity")).map_or(0, |like| like.weight);
    let mut best: Option<(u16, &str)> = None;
    for coding in offered {
        if let Some(weight) = weight(coding)
            && weight > 0
            && weight >= plain
            && best.is_none_or(|(known, _)| weight > known)
        {
            best = Some((weight, coding));
        }
    }
    best.map(|(_, coding)| coding)
}

/// Parses a list with weights; several headers form one list, and unreadable headers are skipped.
fn liked<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<Liked<'a>> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let entries = values.flat_map(|value| value.split(','));
    let read = entries.map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Liked { name, weight: weight.map_or(1_000, thousandths) }
    });
    read.filter(|liked| !liked.name.is_empty()).collect()
}

/// Parses a weight in thousandths: `0.8` is 800; an invalid weight is 0.
fn thousandths(text: &str) -> u16 {
    let weight = text.parse::<f32>().unwrap_or(0.0);
    // The clamp limits the value to 0 to 1,000.
    if weight.is_finite() { (weight.clamp(0.0, 1.0) * 1_000.0) as u16 } else { 0 }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const IMAGES: &[&str] = &["image/avif", "image/webp", "image/jpeg"];

    fn image(accept: &str) -> Option<&'static str> {
        let value = HeaderValue::from_str(accept).expect("a header's value");
        let headers = HeaderMap::from_iter([(header::ACCEPT, value)]);
        media_type(&headers, IMAGES, |kind| kind == "image/jpeg").map(|place| IMAGES[place])
    }

    fn coding(accept: &str) -> Option<&'static str> {
        let value = HeaderValue::from_str(accept).expect("a header's value");
        content_coding(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]), &["br", "gzip"])
    }

    #[test]
    fn a_listed_new_format_is_preferred_and_a_wildcard_gets_a_safe_format() {
        for (accept, kind) in [
            ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", Some("image/avif")),
            ("image/webp,image/*,*/*;q=0.8", Some("image/webp")),
            ("image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", Some("image/jpeg")),
            ("*/*", Some("image/jpeg")),
            ("IMAGE/WEBP", Some("image/webp")),
            ("image/avif;q=0.3, image/webp;q=0.7", Some("image/webp")),
            ("image/*, image/avif;q=0", Some("image/jpeg")),
            ("image/avif;q=0, image/webp;q=0", None),
            ("text/html", None),
            ("", Some("image/jpeg")),
        ] {
            assert_eq!(image(accept), kind, "{accept}");
        }
        assert_eq!(media_type(&HeaderMap::new(), &["image/webp"], |_| false), Some(0));
        assert_eq!(media_type(&HeaderMap::new(), &[], |_| true), None);
    }

    #[test]
    fn the_preferred_coding_is_chosen_and_a_refused_one_never() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("gzip;q=1.0, br;q=0.2", Some("gzip")),
            ("br;q=0, gzip;q=0.1", Some("gzip")),
            ("*", Some("br")),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("deflate", None),
            ("", None),
        ] {
            assert_eq!(coding(accept), expected, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_without_a_panic(accept in "[a-z/*;q=0-9., ]{0,60}") {
            let _ = (image(&accept), coding(&accept));
        }
    }
}
