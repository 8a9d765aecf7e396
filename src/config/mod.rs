//! Reads settings from layers: defaults < file < `.env` < environment < flags.
//!
//! Each value is validated once and keeps its source. This module opens no connection and never changes the process's
//! environment. No message and no `Debug` output contains a password.

mod database;
mod entries;
mod fetching;
mod keys;
mod layers;
mod presets;
mod resolve;
mod secret;
mod security;
mod values;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing_subscriber::EnvFilter;

pub use database::{DatabaseConnections, DatabaseUrl};
pub use fetching::Fetching;
pub use layers::{Problem, Source};
pub use secret::redact;
pub use security::{Auth, Issuer, SecuritySettings, TlsFiles};
pub use values::{parse_duration, parse_size};

use crate::{
    code::ErrorCode,
    http::Placeholder,
    imaging::{Effort, Preset},
    isolation::Policy,
    passphrase::Passphrase,
    resize::UrlKeys,
    secret_keys::SecretKeys,
};
use layers::Layer;
use resolve::Resolver;

/// All settings, parsed. `docs/CONFIG.md` describes each.
#[derive(Clone)]
pub struct Settings {
    /// The directory for local data; may be relative to the working directory.
    pub data_dir: PathBuf,
    /// The database.
    pub database: DatabaseUrl,
    /// Settings of the connections to PostgreSQL.
    pub database_connections: DatabaseConnections,
    /// Whether `pm serve` migrates the schema at start.
    pub auto_migrate: bool,
    /// URL of the shared cache, if any.
    pub redis_url: Option<String>,
    /// Prefix of all keys in Redis.
    pub redis_prefix: String,
    /// Maximum age of a cache entry, in the process or in Redis.
    pub cache_lifetime: Duration,
    /// URL of the message broker, if any.
    pub rabbitmq_url: Option<String>,
    /// Prefix of the queue's name at the broker; the installation's id follows.
    pub rabbitmq_queue: String,
    /// `file://DIRECTORY` or `s3://BUCKET/PREFIX`.
    pub storage_url: String,
    /// Whether pm adopts a blob store without this installation's marker.
    pub storage_adopt: bool,
    /// All `AWS_*` variables of `.env` and the environment, for the image store.
    pub storage_environment: BTreeMap<String, String>,
    /// The server's listen address.
    pub listen: SocketAddr,
    /// Base URL of all links, without a trailing slash.
    pub public_url: Option<String>,
    /// The keys that sign variant URLs.
    pub url_key: Option<UrlKeys>,
    /// The keys that encrypt webhook secrets in the database.
    pub secret_key: Option<SecretKeys>,
    /// The passphrase that encrypts the secrets in a backup.
    pub backup_passphrase: Option<Passphrase>,
    /// The response for an image that is not ready yet.
    pub placeholder: Placeholder,
    /// Authentication, TLS, proxies, rate limit and origins.
    pub security: SecuritySettings,
    /// Whether pm creates an unknown user together with its first product.
    pub auto_users: bool,
    /// Images processed at a time in this process; 0 turns processing off.
    pub workers: usize,
    /// Listen address for a worker's health checks and metrics, if any.
    pub worker_listen: Option<SocketAddr>,
    /// Interval of the removal of orphaned blobs; zero turns it off.
    pub gc_every: Duration,
    /// Limits and permitted sources of downloads.
    pub fetching: Fetching,
    /// Maximum number of waiting jobs per user.
    pub max_waiting_jobs_per_user: u64,
    /// Maximum width times height of an image.
    pub image_max_pixels: u64,
    /// Memory for all images processed at the same time, in bytes.
    pub image_memory: u64,
    /// Limit of the CPU time for one image.
    pub image_timeout: Duration,
    /// Whether separate processes decode images, and whether all sandbox layers are required.
    pub isolation: Policy,
    /// Encoder effort of presets without their own.
    pub image_effort: Effort,
    /// Presets of the renditions, largest first.
    pub presets: Vec<Preset>,
    /// The log filter, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    sources: BTreeMap<&'static str, Source>,
    /// The texts of durations and sizes, as they were set.
    measures: BTreeMap<&'static str, String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// Readable text.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Settings from the command line; `None` leaves a setting to the lower layers.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// A file instead of `pm.toml`.
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--redis-url`
    pub redis_url: Option<String>,
    /// `--rabbitmq-url`
    pub rabbitmq_url: Option<String>,
    /// `--storage-url`
    pub storage_url: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--tls-cert`
    pub tls_cert: Option<String>,
    /// `--tls-key`
    pub tls_key: Option<String>,
    /// `--workers`
    pub workers: Option<String>,
    /// `worker --listen`
    pub worker_listen: Option<String>,
    /// `-v`
    pub log: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

/// Why the settings cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read the settings file {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file has a syntax error.
    #[error("{source_name} cannot be read as settings: {message}")]
    Malformed {
        /// The layer.
        source_name: Source,
        /// The error and its location, without the values.
        message: String,
    },
    /// All invalid names and values.
    #[error("{}", describe(.0))]
    Wrong(Vec<Problem>),
}

fn describe(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Error {
    /// Returns [`ErrorCode::Validation`].
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::Validation
    }

    /// Returns false, because a retry does not correct settings.
    pub const fn is_transient(&self) -> bool {
        false
    }
}

/// Reads all layers.
///
/// `directory` contains `pm.toml` and `.env`; the path of `--config` is relative to it.
///
/// # Errors
/// [`Error::Wrong`] lists every unknown name and every invalid value, with its layer and the allowed values.
pub fn load(
    flags: &Flags,
    directory: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, Error> {
    let mut problems = Vec::new();
    let layers = layers::read(flags, directory, environment, &mut problems)?;
    let mut resolver = Resolver::new(&layers);
    let settings = resolve_all(&mut resolver, &layers);
    problems.append(&mut resolver.problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(Error::Wrong(problems)),
    }
}

/// Reads all settings before it returns, so that all invalid values are reported.
fn resolve_all(resolver: &mut Resolver<'_>, layers: &[Layer]) -> Option<Settings> {
    let data_dir = resolver.take("data_dir", |text| Ok(PathBuf::from(text)));
    let database = database::resolve(resolver, data_dir.as_deref());
    let database_connections = database::connections(resolver);
    let auto_migrate = resolver.take("auto_migrate", values::automatic);
    let redis_url = resolver.optional("redis_url", |text| values::service_url(text, &["redis", "rediss"]));
    let redis_prefix = resolver.take("redis_prefix", values::plain_name);
    let cache_lifetime = resolver.take("cache_lifetime", values::cache_lifetime);
    let rabbitmq_url = resolver.optional("rabbitmq_url", |text| values::service_url(text, &["amqp", "amqps"]));
    let rabbitmq_queue = resolver.take("rabbitmq_queue", values::plain_name);
    let storage_url = resolver.take("storage_url", values::storage_url);
    let storage_adopt = resolver.take("storage_adopt", values::boolean);
    let listen = resolver.take("listen", values::listen);
    let public_url = resolver.optional("public_url", values::public_url);
    let (url_key, secret_key, backup_passphrase) = secrets(resolver);
    let placeholder = resolver.take("placeholder", values::placeholder);
    let security = security::resolve(resolver);
    let auto_users = resolver.take("auto_users", values::boolean);
    let workers = resolver.take("workers", values::workers);
    let worker_listen = resolver.optional("worker_listen", values::listen);
    let gc_every = resolver.take("gc_every", values::gc_every);
    let fetching = fetching::resolve(resolver);
    let max_waiting_jobs_per_user = resolver.take("max_waiting_jobs_per_user", values::waiting_jobs);
    let image_max_pixels = resolver.take("image_max_pixels", values::pixels);
    let image_memory = resolver.take("image_memory", |text| values::size_within(text, 16 << 20, u64::MAX));
    let image_timeout = resolver.take("image_timeout", values::image_timeout);
    let isolation = resolver.take("isolation", values::isolation);
    let (image_effort, presets) = presets::resolve(resolver);
    let log = resolver.take("log", log_filter);
    let log_format = resolver.take("log_format", log_format);

    let (data_dir, database) = (data_dir?, database?);
    Some(Settings {
        auto_migrate: auto_migrate?.unwrap_or(matches!(database, DatabaseUrl::Sqlite { .. })),
        storage_url: values::storage_in(&storage_url?, &data_dir)?,
        data_dir,
        database,
        database_connections: database_connections?,
        redis_url: redis_url?,
        redis_prefix: redis_prefix?,
        cache_lifetime: cache_lifetime?,
        rabbitmq_url: rabbitmq_url?,
        rabbitmq_queue: rabbitmq_queue?,
        storage_adopt: storage_adopt?,
        storage_environment: layers.iter().flat_map(|layer| layer.aws.clone()).collect(),
        listen: listen?,
        public_url: public_url?,
        url_key: url_key?,
        secret_key: secret_key?,
        backup_passphrase: backup_passphrase?,
        placeholder: placeholder?,
        security: security?,
        auto_users: auto_users?,
        workers: workers?,
        worker_listen: worker_listen?,
        gc_every: gc_every?,
        fetching: fetching?,
        max_waiting_jobs_per_user: max_waiting_jobs_per_user?,
        image_max_pixels: image_max_pixels?,
        image_memory: image_memory?,
        image_timeout: image_timeout?,
        isolation: isolation?,
        image_effort: image_effort?,
        presets: presets?,
        log: log?,
        log_format: log_format?,
        sources: std::mem::take(&mut resolver.sources),
        measures: std::mem::take(&mut resolver.measures),
    })
}

type Optional<T> = Option<Option<T>>;

/// Reads the keys and the passphrase.
fn secrets(resolver: &mut Resolver<'_>) -> (Optional<UrlKeys>, Optional<SecretKeys>, Optional<Passphrase>) {
    let url_key = resolver.optional("url_key", UrlKeys::parse);
    let secret_key = resolver.optional("secret_key", SecretKeys::parse);
    (url_key, secret_key, resolver.optional("backup_passphrase", Passphrase::parse))
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map_err(|error| format!("is not a valid filter: {error}"))?;
    Ok(text.to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not known".into()),
    }
}

impl Flags {
    /// Returns the names and values of the flags that are set.
    fn settings(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let all = [
            ("data_dir", &self.data_dir),
            ("database_url", &self.database_url),
            ("redis_url", &self.redis_url),
            ("rabbitmq_url", &self.rabbitmq_url),
            ("storage_url", &self.storage_url),
            ("listen", &self.listen),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("workers", &self.workers),
            ("worker_listen", &self.worker_listen),
            ("log", &self.log),
            ("log_format", &self.log_format),
        ];
        all.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
    }
}

impl Settings {
    /// Returns the source of the setting with this name in a file; the defaults for an unknown name.
    pub fn source(&self, name: &str) -> &Source {
        // A database URL assembled from DB_* has no source of its own, but its parts have.
        let parts = ["db_host", "db_name"].into_iter().filter(|_| name == "database_url");
        let found =
            parts.chain([name]).find_map(|name| self.sources.get(name).filter(|source| **source != Source::Default));
        found.unwrap_or(&Source::Default)
    }
}

/// Returns the flags of settings, each with its command; `None` is every command.
#[cfg(test)]
pub(crate) fn flags() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    keys::Key::all().filter_map(|key| key.flag).map(|flag| (flag.name, flag.command))
}

#[cfg(test)]
mod tests;
