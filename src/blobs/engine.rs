//! Selects the blob store by a URL; S3 settings come from the usual `AWS_*` variables.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
    prefix::PrefixStore,
};
use url::Url;

use super::Error;
use crate::secret::Secret;

/// Location of the blob store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A local directory.
    Disk {
        /// The directory; created if it is missing.
        directory: PathBuf,
    },
    /// A bucket of S3 or a compatible server.
    S3 {
        /// Bucket name.
        bucket: String,
        /// Prefix of every key, without the trailing `/`; may be empty.
        prefix: String,
        /// Endpoint, region and credentials.
        options: S3Options,
    },
}

/// S3 client settings, by lowercase names of environment variables such as `aws_region`.
///
/// `aws_endpoint_url` names a server other than Amazon's; an `http://` endpoint is used without TLS. `Debug` shows only
/// the names, because some values are secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options(BTreeMap<String, Secret<String>>);

impl Engine {
    /// Parses `file:///absolute/path`, `file://./relative/path` or `s3://bucket/prefix`. S3 settings come from the
    /// environment.
    ///
    /// # Errors
    /// A message that says what is invalid.
    pub fn parse(url: &str) -> Result<Self, String> {
        if let Some(relative) = url.strip_prefix("file://").filter(|rest| rest.starts_with("./")) {
            return Ok(Self::Disk { directory: PathBuf::from(relative) });
        }
        let parsed = Url::parse(url).map_err(|error| format!("`{url}` is not a URL: {error}"))?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(format!("`{url}` must have neither `?` nor `#`"));
        }
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(directory) if url.starts_with("file:///") => Ok(Self::Disk { directory }),
                _ => Err(format!("`{url}` must be file:///absolute/path or file://./relative/path")),
            },
            "s3" => parse_s3(&parsed).ok_or_else(|| format!("`{url}` must be s3://bucket or s3://bucket/prefix")),
            other => Err(format!("unsupported scheme {other}://; use file:// or s3://")),
        }
    }
}

impl fmt::Display for Engine {
    /// Writes the URL that [`Engine::parse`] reads; it contains no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { directory } => write!(f, "file://{}", directory.display()),
            Self::S3 { bucket, prefix, .. } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl S3Options {
    /// Reads every `AWS_*` environment variable.
    pub fn from_env() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?.to_ascii_lowercase(), Secret::new(value.into_string().ok()?)))
        };
        Self(std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("aws_")).collect())
    }

    /// Sets one option, such as `aws_access_key_id`; unknown names have no effect.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_ascii_lowercase(), Secret::new(value.to_owned()));
        self
    }

    fn speaks_plain_http(&self) -> bool {
        ["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"]
            .into_iter()
            .find_map(|name| self.0.get(name))
            .is_some_and(|endpoint| endpoint.reveal().starts_with("http://"))
    }
}

/// Creates the client; sends nothing.
pub(super) fn open_s3(bucket: &str, prefix: &str, options: &S3Options) -> Result<Arc<dyn ObjectStore>, Error> {
    // An error means that a TLS provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(30))
        .with_allow_http(options.speaks_plain_http());
    // These retries cover only short interruptions; jobs have longer retries of their own.
    let retry = RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    let builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
    // `aws_region` follows `aws_default_region` in sort order and so overrides it.
    let builder = options.0.iter().fold(builder, |builder, (name, value)| match name.parse::<AmazonS3ConfigKey>() {
        Ok(key) => builder.with_config(key, value.reveal()),
        Err(_) => builder,
    });
    let store = builder.with_bucket_name(bucket).build().map_err(|error| Error::Misconfigured(Box::new(error)))?;
    if prefix.is_empty() { Ok(Arc::new(store)) } else { Ok(Arc::new(PrefixStore::new(store, Path::from(prefix)))) }
}

fn parse_s3(url: &Url) -> Option<Engine> {
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    let prefix = Path::parse(url.path().trim_matches('/')).ok()?;
    let options = S3Options::from_env();
    plain.then(|| Engine::S3 { bucket: bucket.to_owned(), prefix: prefix.to_string(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_absolute_or_begins_with_a_dot() {
        let disk = |url| match Engine::parse(url) {
            Ok(Engine::Disk { directory }) => Ok(directory),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(disk("file:///var/lib/pm/blobs"), Ok("/var/lib/pm/blobs".into()));
        assert_eq!(disk("file:///var/with%20space"), Ok("/var/with space".into()));
        assert_eq!(disk("file://./data/blobs"), Ok("./data/blobs".into()));
        assert_eq!(Engine::parse("file://./data/blobs").expect("a directory").to_string(), "file://./data/blobs");
        for wrong in ["file://var/lib", "file:var", "/var/lib", "", "http://example.com/", "file:///a?b", "file:///a#b"]
        {
            assert!(Engine::parse(wrong).is_err(), "{wrong}: {:?}", Engine::parse(wrong));
        }
    }

    #[test]
    fn a_bucket_may_have_a_prefix() {
        let s3 = |url| match Engine::parse(url) {
            Ok(Engine::S3 { bucket, prefix, .. }) => Some((bucket, prefix)),
            _ => None,
        };
        assert_eq!(s3("s3://images"), Some(("images".into(), String::new())));
        assert_eq!(s3("s3://my.images-1/shop/eu/"), Some(("my.images-1".into(), "shop/eu".into())));
        assert_eq!(Engine::parse("s3://images/shop/").expect("a bucket").to_string(), "s3://images/shop");
        for wrong in ["s3://", "s3:///prefix", "s3://key:secret@bucket/", "s3://bucket:9000/", "s3://bucket/a//b"] {
            assert_eq!(s3(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = S3Options::default().with("AWS_SECRET_ACCESS_KEY", "hunter2");
        let engine = Engine::S3 { bucket: "b".into(), prefix: String::new(), options };
        assert!(!format!("{engine:?} {engine}").contains("hunter2"));
    }
}
