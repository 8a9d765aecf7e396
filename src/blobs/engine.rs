//! Which store holds the blobs, read from one URL and, for S3, from the usual `AWS_*` variables.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path,
    prefix::PrefixStore,
};
use url::Url;

use super::Error;

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// In a directory of this machine.
    Disk {
        /// The directory; it is made if it is missing.
        directory: PathBuf,
    },
    /// In a bucket of S3 or of a server that speaks its protocol.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// Put before every key, with a `/` between; may be empty.
        prefix: String,
        /// Address, region and credentials.
        options: S3Options,
    },
}

/// Settings of the S3 client by the names of their environment variables in lower case, such as `aws_region`.
///
/// `aws_endpoint_url` names a server other than Amazon's; one with `http://` is spoken to without TLS. Its `Debug`
/// shows the names alone, as some of the values are secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options(BTreeMap<String, String>);

impl Engine {
    /// Reads `file:///absolute/path`, `file://./relative/path` or `s3://bucket/prefix`; for S3 the settings are taken
    /// from the environment.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
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
            other => Err(format!("blobs are kept at file:// or s3://, not at {other}://")),
        }
    }
}

impl fmt::Display for Engine {
    /// The URL that [`Engine::parse`] reads, for logs: without settings, so without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { directory } => write!(f, "file://{}", directory.display()),
            Self::S3 { bucket, prefix, .. } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix, .. } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl S3Options {
    /// Takes every `AWS_*` variable of the environment.
    pub fn from_env() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("aws_")).collect())
    }

    /// Sets one option, such as `aws_access_key_id`; names that the client does not know have no effect.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_ascii_lowercase(), value.to_owned());
        self
    }

    fn speaks_plain_http(&self) -> bool {
        ["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"]
            .into_iter()
            .find_map(|name| self.0.get(name))
            .is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Builds the client; nothing is sent yet.
pub(super) fn open_s3(bucket: &str, prefix: &str, options: &S3Options) -> Result<Arc<dyn ObjectStore>, Error> {
    // An error means that a TLS provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(30))
        .with_allow_http(options.speaks_plain_http());
    // Jobs have retries of their own that last longer; these here bridge a hiccup only.
    let retry = RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    let builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
    // In the order of the names `aws_default_region` comes before `aws_region`, which so wins.
    let builder = options.0.iter().fold(builder, |builder, (name, value)| match name.parse::<AmazonS3ConfigKey>() {
        Ok(key) => builder.with_config(key, value),
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
    fn directories_are_absolute_or_begin_with_a_dot() {
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
        assert_eq!(s3("s3://pictures"), Some(("pictures".into(), String::new())));
        assert_eq!(s3("s3://my.pictures-1/shop/eu/"), Some(("my.pictures-1".into(), "shop/eu".into())));
        assert_eq!(Engine::parse("s3://pictures/shop/").expect("a bucket").to_string(), "s3://pictures/shop");
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
