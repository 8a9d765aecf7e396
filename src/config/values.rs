//! Parses single values: sizes, durations, addresses. Messages never contain the value.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use url::Url;

use crate::{http::Placeholder, imaging::Effort, isolation::Policy};

/// Parses a size in bytes: `32MiB`, `512 MiB`, `2 GB`, `33554432`; ignores case.
///
/// # Errors
/// A message if the number or the unit is invalid, or the size exceeds 64 bits.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err("has an unknown unit; allowed are B, KB, MB, GB, KiB, MiB, GiB".into()),
    };
    number.checked_mul(factor).ok_or_else(|| "is too large".into())
}

/// Parses a duration: `500ms`, `30s`, `5m`, `2h`, `3d`; the unit is required.
///
/// # Errors
/// A message if the number or the unit is missing or invalid, or the duration is too long.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_number(text)?;
    let factor_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err("needs a unit; allowed are ms, s, m, h, d".into()),
        _ => return Err("has an unknown unit; allowed are ms, s, m, h, d".into()),
    };
    number.checked_mul(factor_ms).map(Duration::from_millis).ok_or_else(|| "is too long".into())
}

fn split_number(text: &str) -> Result<(u64, &str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.replace('_', "").parse().map_err(|_| "does not start with a whole number".to_owned())?;
    Ok((number, unit.trim()))
}

/// Parses a size between `least` and `most` bytes.
pub(super) fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (least..=most).contains(&size) { Ok(size) } else { Err("is out of range".into()) }
}

/// Parses the response for an image that is not ready.
pub(super) fn placeholder(text: &str) -> Result<Placeholder, String> {
    Placeholder::parse(text).ok_or_else(|| "is unknown".into())
}

/// Parses the maximum age of cache entries.
pub(super) fn cache_lifetime(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(1), Duration::from_secs(30 * 24 * 3_600))
}

/// Parses the gc interval; zero turns gc off.
pub(super) fn gc_every(text: &str) -> Result<Duration, String> {
    if text == "0" || parse_duration(text)?.is_zero() {
        return Ok(Duration::ZERO);
    }
    duration_within(text, Duration::from_secs(1), Duration::from_secs(365 * 24 * 3_600))
}

/// Parses the time limit of a download.
pub(super) fn fetch_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(100), Duration::from_secs(3_600))
}

/// Parses the CPU time limit for one image.
pub(super) fn image_timeout(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(1), Duration::from_secs(600))
}

/// Parses a duration between `least` and `most`.
pub(super) fn duration_within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let span = parse_duration(text)?;
    if (least..=most).contains(&span) { Ok(span) } else { Err("is out of range".into()) }
}

/// Parses the maximum number of waiting jobs per user.
pub(super) fn waiting_jobs(text: &str) -> Result<u64, String> {
    count_within(text, 1, 1_000_000_000)
}

/// Parses a number between `least` and `most`.
pub(super) fn count_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let count = text.replace('_', "").parse().map_err(|_| "is not a valid number".to_owned())?;
    if (least..=most).contains(&count) { Ok(count) } else { Err("is out of range".into()) }
}

pub(super) fn pixels(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "px" => 1,
        "mpx" => 1_000_000,
        _ => return Err("has an unknown unit; allowed are px, Mpx".into()),
    };
    let pixels = number.saturating_mul(factor);
    if (1..=1_000_000_000).contains(&pixels) { Ok(pixels) } else { Err("is out of range".into()) }
}

pub(super) fn effort(text: &str) -> Result<Effort, String> {
    Effort::parse(text).ok_or_else(|| "is unknown".into())
}

/// Parses the isolation policy of decoders.
pub(super) fn isolation(text: &str) -> Result<Policy, String> {
    Policy::parse(text).ok_or_else(|| "is unknown".into())
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// Parses a boolean; returns `None` for `auto`.
pub(super) fn automatic(text: &str) -> Result<Option<bool>, String> {
    if text.eq_ignore_ascii_case("auto") { Ok(None) } else { boolean(text).map(Some) }
}

pub(super) fn workers(text: &str) -> Result<usize, String> {
    if text.eq_ignore_ascii_case("auto") {
        // Use one worker if the number of cores is unknown.
        return Ok(thread::available_parallelism().map_or(1, NonZeroUsize::get));
    }
    text.parse().ok().filter(|workers| *workers <= 1_024).ok_or_else(|| "is not a valid number".into())
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| "is not an address with a port".into())
}

/// Parses a base URL and removes its trailing slash.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a valid URL: {error}"))?;
    let plain =
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() && url.fragment().is_none();
    if !plain {
        return Err("is not an http or https URL without query and fragment".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or a password".into());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Checks that `text` is one URL with one of `schemes`.
pub(super) fn service_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    if text.contains(',') {
        return Err("contains more than one URL".into());
    }
    let url = Url::parse(text.trim()).map_err(|error| format!("is not a valid URL: {error}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err("has an unsupported scheme".into());
    }
    if !url.has_host() {
        return Err("names no host".into());
    }
    Ok(text.trim().to_owned())
}

pub(super) fn storage_url(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        Some(("file", path)) if !path.is_empty() => Ok(text.to_owned()),
        Some(("s3", _)) => service_url(text, &["s3"]),
        Some(("file", _)) => Err("names no directory".into()),
        _ => Err("has an unsupported scheme".into()),
    }
}

/// Replaces `{data_dir}` in a `file:` URL; other URLs stay unchanged.
///
/// The result is `file:///absolute/path` or `file://./relative/path`.
pub(super) fn storage_in(url: &str, data_dir: &Path) -> Option<String> {
    let Some(path) = url.strip_prefix("file://") else { return Some(url.to_owned()) };
    let path = match path.strip_prefix("{data_dir}") {
        Some(inside) => data_dir.join(inside.trim_start_matches('/')),
        None if path.starts_with('/') => return Some(url.to_owned()),
        None => PathBuf::from(path),
    };
    if path.is_absolute() {
        // The reader of an absolute URL decodes it, so special characters in the path must be encoded.
        return Url::from_file_path(&path).ok().map(String::from);
    }
    let relative = path.strip_prefix(".").unwrap_or(&path);
    Some(format!("file://./{}", relative.display()))
}

/// Checks that a name is safe in keys, queue names and log lines.
pub(super) fn plain_name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    if plain && (1..=64).contains(&text.len()) { Ok(text.to_owned()) } else { Err("is not a valid name".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_in_every_spelling() {
        for (text, bytes) in [
            ("0", 0),
            ("33554432", 32 << 20),
            ("33_554_432 B", 32 << 20),
            ("32MiB", 32 << 20),
            ("512 MiB", 512 << 20),
            ("2 gib", 2 << 30),
            ("1KB", 1_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5 GiB", "3 bananas", "99999999999 GiB", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5 m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("3d"), Ok(Duration::from_secs(3 * 86_400)));
        for text in ["30", "s", "1y", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_public_url_loses_its_trailing_slash_and_has_no_query_or_user() {
        assert_eq!(public_url("https://shop.example/"), Ok("https://shop.example".into()));
        assert_eq!(public_url("https://shop.example/pm/"), Ok("https://shop.example/pm".into()));
        for text in ["shop.example", "ftp://shop.example", "https://shop.example/?a=b", "https://u:p@shop.example"] {
            assert!(public_url(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn the_storage_url_contains_the_encoded_data_directory() {
        let stored = |url, data_dir| storage_in(url, Path::new(data_dir)).expect("an address");
        assert_eq!(stored("file://{data_dir}/blobs", "./pm-data"), "file://./pm-data/blobs");
        assert_eq!(stored("file://{data_dir}/blobs", "data"), "file://./data/blobs");
        assert_eq!(stored("file://{data_dir}/blobs", "/srv/a b#1"), "file:///srv/a%20b%231/blobs");
        assert_eq!(stored("file://blobs", "/srv"), "file://./blobs");
        assert_eq!(stored("file:///blobs", "/srv"), "file:///blobs");
        assert_eq!(stored("s3://bucket/a", "/srv"), "s3://bucket/a");
    }

    #[test]
    fn only_known_schemes_are_accepted() {
        assert!(service_url("rediss://b:6379", &["redis", "rediss"]).is_ok());
        assert!(service_url("redis://a:6379,redis://b:6379", &["redis", "rediss"]).is_err());
        assert!(service_url("http://a:6379", &["redis", "rediss"]).is_err());
        assert!(storage_url("file://./blobs").is_ok());
        assert!(storage_url("s3://bucket/prefix").is_ok());
        assert!(storage_url("gs://bucket").is_err());
    }
}
